"""One file a command: its arguments as a dataclass, and what it does."""
