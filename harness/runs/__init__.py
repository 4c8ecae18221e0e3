"""The run folder on disk, its progress, and how a run is resumed.

Its formats lie here: the manifest, every scored position of the divergence suite, the results of SWE-bench instances.

May import: harness.contract, harness.judging.
"""
