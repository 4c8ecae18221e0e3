"""Chain-of-thought tasks of lm-eval, ours (`tasks/`) and its own."""
