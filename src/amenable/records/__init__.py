"""What we talk about: plain frozen values, no input or output."""
