"""The commands of `python -m neurosurgery`, a module each: `add_parser` and `run`.

Their imports at the top are free of torch, so that `--help` and bad flags answer at once.
"""
