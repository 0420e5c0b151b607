"""Figures: each is a function of tables that gives a Vega-Lite specification."""
