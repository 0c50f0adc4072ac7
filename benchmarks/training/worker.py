"""A worker from the harness's side: started, asked for blocks of steps, ended."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.training.workers.protocol import ANSWERS

ENVIRONMENT = {
    "THP_MEM_ALLOC_ENABLE": "1",
    "GOMP_SPINCOUNT": "10000",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""The same for both sides: a peer is not to lose for want of a setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What a side did between two lines; the seconds are the harness's."""

    seconds: float
    cpu_seconds: float
    losses: tuple[float, ...]
    digests: tuple[str, ...]


class Worker:
    """Both sides' workers stay warm: only one of them works at a time."""

    def __init__(
        self,
        command: Sequence[str | Path],
        paths: Sequence[Path],
        spec: Mapping[str, Any],
        log: Path,
    ) -> None:
        spec_path = log.with_suffix(".json")
        spec_path.write_text(json.dumps(spec), encoding="utf-8")
        environment = os.environ | ENVIRONMENT
        environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
        self._log_path = log
        self._log = log.open("wb")
        answers, theirs = os.pipe()
        self._answers = os.fdopen(answers)
        self._process = subprocess.Popen(
            [*command, spec_path],
            env=environment | {ANSWERS: str(theirs)},
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(theirs,),
            text=True,
        )
        os.close(theirs)
        self.about: dict[str, Any] = {}
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        self.about = self._answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._answers.close()

    def take(self, num_steps: int) -> Block:
        assert self._process.stdin is not None
        began = time.perf_counter()
        self._process.stdin.write(json.dumps({"steps": num_steps}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.peak_bytes = answer["peak_bytes"]
        return Block(
            seconds=time.perf_counter() - began,
            cpu_seconds=answer["cpu_seconds"],
            losses=tuple(answer["losses"]),
            digests=tuple(answer["digests"]),
        )

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            tail = self._log_path.read_text(encoding="utf-8", errors="replace")[-2000:]
            print(tail, file=sys.stderr)
            raise ChildProcessError(f"A worker ended; its log is {self._log_path}.")
        return json.loads(line)
