"""The audit of the statistics: `python -m benchmarks.coverage`."""
