"""The harness's model interface: the stock answers from fewer computed tokens."""
