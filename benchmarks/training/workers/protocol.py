"""How a worker and the harness speak: a line of JSON each way for a block of steps.

Standard library alone: it is imported in every peer's environment.
"""

import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

ANSWERS = "BENCHMARK_ANSWERS"
"""The variable that names the file descriptor to answer on."""
Scored = tuple[Sequence[int], Sequence[bool]]
"""Token ids, and which of them are scored (of a reward model: the last)."""


def digest(sequences: Iterable[Scored]) -> str:
    """What a step was taken on, whatever the order of its sequences and how often each came."""
    lines = {
        f"{' '.join(map(str, ids))}|{''.join('1' if each else '0' for each in scored)}"
        for ids, scored in sequences
    }
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def read_spec() -> dict[str, Any]:
    """The worker's one argument is the path of what it is to do."""
    return json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


class Turns:
    """The harness's leave to take steps; without it a worker waits, and burns no processor."""

    def __init__(self) -> None:
        # A pipe of its own: what libraries print must not stand between the lines.
        self._out: TextIO = os.fdopen(int(os.environ[ANSWERS]), "w")
        self._baseline = _memory()
        self._left = 0
        self._losses: list[float] = []
        self._digests: list[str] = []
        self._began = 0.0

    def ready(self, **about: Any) -> None:
        self._say({"ready": True, "baseline_bytes": self._baseline, **about})

    def before_step(self) -> None:
        if self._left:
            return
        line = sys.stdin.readline()
        if not line:
            raise SystemExit(0)
        self._left = int(json.loads(line)["steps"])
        self._losses, self._digests = [], []
        self._began = time.process_time()

    def after_step(self, loss: float, step_digest: str) -> None:
        self._losses.append(loss)
        self._digests.append(step_digest)
        self._left -= 1
        if not self._left:
            self._say(
                {
                    "losses": self._losses,
                    "digests": self._digests,
                    "cpu_seconds": time.process_time() - self._began,
                    "peak_bytes": _memory(),
                }
            )

    def _say(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()


def _memory() -> int:
    """The most that this process has held at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
