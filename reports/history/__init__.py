"""Checks of many runs over time, and any two runs side by side."""
