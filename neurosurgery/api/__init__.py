"""What a notebook calls: locate, evaluate and compare with a loaded model and plain texts."""
