"""The harness's model interface: the same answers as HFLM from fewer computed tokens."""
