"""How an answer is read: what it states, how it ended, in which language it is."""
