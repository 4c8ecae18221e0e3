"""The figures that a report shows of each suite: one module a suite, drawn from what the tables are made of.

scores is shared: the figure of any suite that has some.
"""
