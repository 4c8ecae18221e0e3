"""Items, scores and comparisons without a server.

May import: harness.contract, harness.judging, harness.runs, harness.endpoint, harness.checkpoint, suites.
"""
