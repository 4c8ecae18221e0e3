"""What a client has asked of its server, to be held against the server's own counters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Asked:
    """What was asked for in requests that the server answered with 200: render() and score() too, refusals not."""

    requests: int = 0
    budget: int = 0
    """Sum of their max_tokens."""
    longest: int = 0
    """Most tokens that one of them needs: prompt and max_tokens together."""

    def add(self, requests: int, budget: int, longest: int = 0) -> None:
        """Count further requests, by the sum of their max_tokens and the most tokens that one of them needs."""
        self.requests += requests
        self.budget += budget
        self.longest = max(self.longest, longest)
