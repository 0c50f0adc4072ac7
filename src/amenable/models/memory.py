"""Free memory handed back to the system: a long run need not hold what it once used."""

import ctypes
import sys


def give_back() -> None:
    """Do it now and then: what is given back and needed again has to be cleared first.

    glibc keeps freed blocks that lie between used ones, and batches of ever new lengths fit few of
    them: finetuning grew by half a gigabyte a step. Allocators of other systems are left alone.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
