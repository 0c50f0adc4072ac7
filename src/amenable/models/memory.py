"""Freed memory: kept for the next batch, and handed back to the system where nothing needs it.

Pages that are handed back and needed again have to be cleared first, which takes a fifth of a
training step (docs/experiments.md). But glibc keeps freed blocks that lie between used ones, and
batches of ever new lengths fit few of them: what is kept would grow and grow.
"""

import ctypes
import sys

import psutil

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Numbers of glibc's own (malloc.h, M_TRIM_THRESHOLD and M_MMAP_MAX)."""
NEVER = 2**31 - 1
SPARE_BYTES = 3 << 27


def give_back() -> None:
    """Hand back all that is free; allocators of other systems are left alone."""
    _call_glibc("malloc_trim", 0)


class Reserve:
    """Lets a process keep what its batches free, up to a little more than one batch needed."""

    def __init__(self) -> None:
        # Large blocks would go back to the system one by one otherwise, whatever is kept.
        _call_glibc("mallopt", MMAP_MAX, 0)
        _call_glibc("mallopt", TRIM_THRESHOLD, NEVER)
        self._process = psutil.Process()
        self._most_needed = 0
        self._hand_back()

    def after_batch(self) -> None:
        kept = self._process.memory_info().rss - self._floor
        if self._is_fresh:
            self._most_needed = max(self._most_needed, kept)
            self._is_fresh = False
        elif kept > self._most_needed + SPARE_BYTES:
            self._hand_back()

    def _hand_back(self) -> None:
        give_back()
        self._floor = self._process.memory_info().rss
        self._is_fresh = True


def _call_glibc(name: str, *numbers: int) -> None:
    if sys.platform == "linux":
        function = getattr(ctypes.CDLL(None), name, None)  # musl has none
        if function is not None:
            function(*numbers)
