"""Run the cells of a grid: plan, gather statistics, compute, record."""
