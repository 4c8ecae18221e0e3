"""An agent mends real bugs in containers; the official harness grades."""
