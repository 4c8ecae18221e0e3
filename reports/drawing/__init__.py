"""Charts as SVG, drawn with matplotlib."""
