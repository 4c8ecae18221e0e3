"""Does the gate catch known damage? A catalogue of defects, each gated for real, and what came of it.

May import: harness.contract, harness.judging, harness.runs, harness.endpoint, harness.serving, harness.checkpoint,
harness.gate, suites, reports.
"""
