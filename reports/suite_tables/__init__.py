"""The tables that a report shows of each suite: one module a suite, each a pure function of what was stored."""
