"""What machines read of a run: JSON, JUnit, Markdown, a badge."""
