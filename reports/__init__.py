"""What people and machines read of a finished run; nothing here decides anything."""
