"""What a run found, laid into a model card: with the base model's licence, and the public data set of each task."""
