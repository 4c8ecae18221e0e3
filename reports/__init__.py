"""What people and machines read of a finished run; nothing here decides anything.

May import: harness.contract, harness.judging, harness.runs, harness.parity.comparison.
"""
