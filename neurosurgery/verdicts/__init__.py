"""Judge differences: intervals, verdicts, comparison of methods. Imports no transformers."""
