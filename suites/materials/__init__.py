"""What prompts are made of: texts to hide needles in, problems, prompts that ship; and how they fit a length."""
