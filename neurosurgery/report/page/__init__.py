"""Choose the figures of a folder and put them on one HTML page."""
