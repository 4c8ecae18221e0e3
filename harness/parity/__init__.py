"""Are two servers comparable, and did they stay so?

May import: harness.contract, harness.endpoint.
"""
