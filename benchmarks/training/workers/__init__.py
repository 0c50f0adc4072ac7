"""What runs in a peer's own environment: it reaches nothing of ours, and only its own folder."""
