"""The methods: what other rooms know of each. Imports no torch."""
