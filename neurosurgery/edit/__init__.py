"""Change selected weights in place and restore them, or write the changed model to a folder."""
