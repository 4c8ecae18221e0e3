"""How weights are stored: one module a layout."""
