"""Judge differences: intervals, verdicts, comparison of methods. No transformers."""
