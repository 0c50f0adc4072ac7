"""What a run leaves in its folder while it works: how far it is, its numbers, its film strip."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amenable.store.artifacts import append_line, write_whole

PROGRESS = "progress.json"
METRICS = "metrics.jsonl"
FILM = "film.jsonl"
PROGRESS_PAUSE_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is being done, how far, how long still and how fast."""

    doing: str
    done: int
    total: int
    unit: str
    seconds_spent: float
    seconds_left: float | None = None
    rate: float | None = None
    rate_unit: str = ""

    @property
    def share(self) -> float:
        """Between 0 and 1; a total that is not known counts as not begun.

        >>> Progress(doing="train", done=3, total=4, unit="steps", seconds_spent=1.0).share
        0.75
        """
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0


class RunLog:
    """Writes a run's folder; never the database, which a training step must not wait for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started_at = time.monotonic()
        self._metrics_started_at = self._started_at - _last_seconds(folder)
        self._last_doing = ""
        self._written_at = -math.inf

    def progress(self, progress: Progress) -> None:
        """Show how far it is; what comes faster than a person can read is left out."""
        now = time.monotonic()
        is_last = progress.done >= progress.total
        is_soon = now - self._written_at < PROGRESS_PAUSE_SECONDS
        if is_soon and progress.doing == self._last_doing and not is_last:
            return
        self._last_doing, self._written_at = progress.doing, now
        data = json.dumps(_finite(asdict(progress))).encode()
        write_whole(self._folder / PROGRESS, data, is_durable=False)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of one step; `seconds` goes on where an earlier attempt stopped."""
        seconds = round(time.monotonic() - self._metrics_started_at, 3)
        line = {"step": step, "seconds": seconds, **_finite(values)}
        append_line(self._folder / METRICS, json.dumps(line))

    def film(self, frame: Mapping[str, Any]) -> None:
        """One picture of the film strip: how the model replied at this moment."""
        append_line(self._folder / FILM, json.dumps(frame))

    def go_back_to(self, step: int) -> None:
        """Drop what came after `step`: a run that resumes from a checkpoint says it again."""
        for name in (METRICS, FILM):
            path = self._folder / name
            if path.exists():
                kept = [line for line in _lines(path) if line.get("step", 0) <= step]
                data = "".join(json.dumps(line) + "\n" for line in kept).encode()
                write_whole(path, data)
        self._metrics_started_at = time.monotonic() - _last_seconds(self._folder)


class Stopwatch:
    """Makes `Progress` values: counts seconds and tells from the pace how many are left."""

    def __init__(self, doing: str, total: int, unit: str, *, rate_unit: str = "") -> None:
        self._doing = doing
        self._total = total
        self._unit = unit
        self._rate_unit = rate_unit or f"{unit} a second"
        self._started_at = time.monotonic()
        self._first_done: int | None = None

    def at(self, done: int, *, amount: float | None = None) -> Progress:
        """`amount` is what the rate counts when that is not the unit: tokens beside steps."""
        if self._first_done is None:
            # A resumed run did not do the first steps now, so they must not make it look fast.
            self._first_done = done
        spent = time.monotonic() - self._started_at
        pace = (done - self._first_done) / spent if spent > 0 else 0.0
        counted = amount / spent if amount is not None and spent > 0 else pace
        return Progress(
            doing=self._doing,
            done=done,
            total=self._total,
            unit=self._unit,
            seconds_spent=spent,
            seconds_left=(self._total - done) / pace if pace > 0 else None,
            rate=counted if counted > 0 else None,
            rate_unit=self._rate_unit,
        )


def read_progress(folder: Path) -> Progress | None:
    """How far the run is; None if it has not said so yet, or a power cut left half of it."""
    try:
        return Progress(**json.loads((folder / PROGRESS).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def read_metrics(folder: Path, after: int = 0) -> list[dict[str, Any]]:
    """The numbers of each step later than `after`, in order; 0 gives all."""
    lines = _lines(folder / METRICS)
    return [line for line in lines if after == 0 or line["step"] > after]


def read_film(folder: Path) -> list[dict[str, Any]]:
    return _lines(folder / FILM)


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines only: one that a crash cut short, or that is being written, is no line yet."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    return [line for text in data.split(b"\n") if (line := _parsed(text)) is not None]


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _last_seconds(folder: Path) -> float:
    lines = _lines(folder / METRICS)
    return float(lines[-1]["seconds"]) if lines else 0.0


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no infinity: a number that is none becomes null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
