"""Log-probabilities of both models along answers that the reference wrote."""
