"""The evaluations: one module per suite, its configuration beside its class."""
