"""Servers, commands and containers that end when the gate does.

May import: harness.contract, harness.runs.
"""
