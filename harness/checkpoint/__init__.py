"""What a checkpoint is by its headers, what it claims to be, and the doubts between the two.

May import: harness.contract, quantizers.
"""
