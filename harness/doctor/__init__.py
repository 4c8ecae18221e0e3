"""What this machine lacks for a policy: programs, memory, disk, data files.

May import: harness.contract, harness.serving.
"""
