"""What is asked of a server, and how its answers are read.

May import: harness.contract.
"""
