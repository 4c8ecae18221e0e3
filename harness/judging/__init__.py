"""From samples to a verdict: pure functions.

May import: harness.contract.
"""
