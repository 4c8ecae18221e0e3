"""Charts as SVG, drawn with matplotlib: of checks, and the kinds that figures of suites share."""
