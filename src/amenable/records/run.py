"""One execution of a stage: what went in and out, with which knobs, versions, time and memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

RunStatus = Literal["queued", "running", "done", "failed", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """`inputs` and `outputs` map a role ("model", "comparisons") to a name in the library."""

    id: str
    stage: str
    status: RunStatus
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    config: Mapping[str, object]
    seed: int
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    error: str | None = None


def counted(**numbers: int) -> dict[str, str]:
    """Outputs that say how many; what there is none of is left out.

    >>> counted(cut=3, left_out=0)
    {'cut': '3'}
    """
    return {role: str(number) for role, number in numbers.items() if number}
