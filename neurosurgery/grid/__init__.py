"""Take a model through the cells of a grid: plan, gather statistics, work, record."""
