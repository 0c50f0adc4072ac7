"""The handlers: read, ask the domain, answer."""
