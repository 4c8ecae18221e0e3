"""Instances of SWE-bench: what came of each, and a page with both trajectories."""
