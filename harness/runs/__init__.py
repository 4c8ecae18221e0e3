"""The run folder on disk, its progress, and how a run is resumed.

May import: harness.contract, harness.judging.
"""
