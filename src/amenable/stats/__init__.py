"""How sure we are: numbers in, numbers out."""
