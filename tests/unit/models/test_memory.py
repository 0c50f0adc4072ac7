"""When freed memory is kept for the next batch, and when it is handed back."""

from types import SimpleNamespace

import pytest

from amenable.models import memory
from amenable.models.memory import SPARE_BYTES, Reserve

GIGABYTE = 10**9


def said_to_nobody(name: str, *numbers: int) -> None:
    del name, numbers


def test_what_a_batch_needs_is_kept_and_what_grows_beyond_it_is_handed_back(
    monkeypatch: pytest.MonkeyPatch,
):
    held = [GIGABYTE]
    times: list[int] = []

    def give_back() -> None:
        times.append(held[0])
        held[0] = GIGABYTE

    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=held[0]))
    monkeypatch.setattr(memory.psutil, "Process", lambda: process)
    monkeypatch.setattr(memory, "give_back", give_back)
    monkeypatch.setattr(memory, "_call_glibc", said_to_nobody)  # for the whole process otherwise
    reserve = Reserve()
    for held[0] in (2 * GIGABYTE, 2 * GIGABYTE + SPARE_BYTES):  # the first says what is needed
        reserve.after_batch()
    assert times == [GIGABYTE]  # at the beginning alone
    held[0] = 2 * GIGABYTE + SPARE_BYTES + 1
    reserve.after_batch()
    assert len(times) == 2
    held[0] = 3 * GIGABYTE  # a larger batch, right after: it needs as much
    reserve.after_batch()
    held[0] = 3 * GIGABYTE + SPARE_BYTES
    reserve.after_batch()
    assert len(times) == 2
