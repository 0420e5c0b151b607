"""The command line: flags, parsing, and the commands of `python -m neurosurgery`."""
