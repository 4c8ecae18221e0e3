"""What all rooms speak of: policy, public data sets, items, samples, pairs, metrics, kinds of errors, facts of a model.

Also what all rooms read and write in one way: whole files and JSON, conversations, other people's text.

May import: nothing of ours.
"""
