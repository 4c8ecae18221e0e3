"""The gate itself: command line, policy, run folder, servers, endpoint client, parity, verdict."""

__version__ = "0.1.0"
