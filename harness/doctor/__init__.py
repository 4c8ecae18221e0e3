"""What this machine lacks for a policy.

May import: harness.contract, harness.serving.
"""
