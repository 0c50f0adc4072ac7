"""What other people's code raises while a model is read: lack of memory told from damage."""

NO_MEMORY = ("out of memory", "not enough memory", "allocate memory", "alloc_failed")
"""What torch, CUDA, its libraries, Metal and the system say."""


def is_out_of_memory(error: Exception) -> bool:
    """Torch says it by a RuntimeError; torch itself is not asked, since pages do without it.

    >>> is_out_of_memory(RuntimeError("CUDA out of memory.")), is_out_of_memory(ValueError("no"))
    (True, False)
    """
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(words in said for words in NO_MEMORY)
    )


def first_line(error: Exception) -> str:
    """What it says, on one line; its kind where it says nothing.

    >>> first_line(ValueError("no\\nand more")), first_line(EOFError())
    ('no', 'EOFError')
    """
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__
