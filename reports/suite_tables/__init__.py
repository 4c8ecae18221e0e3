"""The tables that a report shows of each suite: one module a suite, each a pure function of what was stored.

Shared by them: table (what tables are made of and from), scores (of any suite that has some), and effective_length.
"""
