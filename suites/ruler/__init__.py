"""The thirteen RULER tasks at any length, and the datasets they draw from."""
