"""What a checkpoint is, from its files alone, and whether it is what it claims to be."""
