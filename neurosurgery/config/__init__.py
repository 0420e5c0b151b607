"""What a run is: its settings, methods, cells, and the checks of what a user gives. No torch."""
