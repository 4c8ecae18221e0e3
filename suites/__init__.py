"""The evaluations: each makes items and scores answers.

May import: harness.contract, harness.endpoint, harness.runs, harness.serving.
"""
