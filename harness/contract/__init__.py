"""What all rooms speak of: errors, policy, items, samples, metrics.

May import: nothing of ours.
"""
