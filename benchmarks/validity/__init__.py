"""Evidence that the verdicts hold: simulated and enumerated error rates, and real outcomes. See docs/validity.md."""
