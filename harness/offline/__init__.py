"""Items, scores and comparisons without a server, and the results of other programs as samples.

May import: harness.contract, harness.judging, harness.runs, harness.endpoint, harness.checkpoint, suites, reports.
"""
