"""Servers, commands and containers that end when the gate does.

Also what a server needs to begin: the machine's hardware and its share of it, the flags; and the memory that it takes.

May import: harness.contract, harness.runs, quantgate_kernels.
"""
