"""The gate: its command line here, the steps below it in rooms of their own.

May import: harness.contract, harness.judging, harness.runs, harness.serving, harness.checkpoint, harness.doctor,
harness.offline, harness.gate, harness.prove, reports.
"""

__version__ = "0.1.0"
