"""What each script asks: its settings, its cells, and what it adds to a run."""
