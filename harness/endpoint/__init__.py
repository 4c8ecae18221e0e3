"""What is asked of a server, and how its answers are read.

score_route alone runs elsewhere: inside vLLM's own server process, which it gives a faster way to log-probabilities.

May import: harness.contract.
"""
