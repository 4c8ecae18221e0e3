"""What a run found, laid into a model card."""
