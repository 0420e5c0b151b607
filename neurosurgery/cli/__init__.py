"""The command line: flags, parsing, and the commands of `neurosurgery`."""
