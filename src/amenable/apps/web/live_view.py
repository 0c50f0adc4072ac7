"""A run while it goes, ready to be shown: progress, curve points, film strip."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp
from pathlib import Path
from typing import Any

from amenable.apps.web import words
from amenable.pipeline import progress as logs

MAX_POINTS = 400
"""More points than the curve has pixels teach nobody anything."""
FILM_BAR = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressView:
    doing: str
    count: str
    percent: float
    left: str
    spent: str
    rate: str
    rate_unit: str

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def progress_view(folder: Path) -> ProgressView | None:
    found = logs.read_progress(folder)
    if found is None:
        return None
    return ProgressView(
        doing=found.doing,
        count=f"{words.thousands(found.done)} of {words.thousands(found.total)} {found.unit}"
        if found.total
        else f"{words.thousands(found.done)} {found.unit}",
        percent=round(100 * min(1.0, found.done / found.total), 1) if found.total else 0,
        left=words.duration(found.seconds_left),
        spent=words.duration(found.seconds_spent),
        rate="–" if found.rate is None else _rate(found.rate),
        rate_unit=found.rate_unit or "speed",
    )


def _rate(rate: float) -> str:
    return words.thousands(rate) if rate >= 100 else f"{rate:.3g}"


def points(folder: Path, after: int = -1) -> list[dict[str, Any]]:
    """The metrics after a step, thinned evenly; the last one always stays."""
    found = [point for point in logs.read_metrics(folder) if int(point["step"]) > after]
    stride = -(-len(found) // MAX_POINTS) or 1
    return [*found[:-1:stride], *found[-1:]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmStep:
    name: str
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmCell:
    mark: str
    reply: str | None
    end: str = ""
    end_width: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmRow:
    prompt: str
    cells: Sequence[FilmCell]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmView:
    steps: Sequence[FilmStep]
    rows: Sequence[FilmRow]
    num_frames: int


def film_view(folder: Path, *, is_over: bool) -> FilmView | None:
    """The strip so far; the last frame of a finished run is the trained model."""
    frames = {int(frame["step"]): frame["replies"] for frame in logs.read_film(folder)}
    if not frames:
        return None
    last = max(frames) if is_over else None
    marks = {step: _mark(step, last) for step in sorted(frames)}
    replies = {
        (reply["prompt"], step): reply for step, several in frames.items() for reply in several
    }
    prompts = dict.fromkeys(prompt for prompt, _ in replies)
    return FilmView(
        steps=[FilmStep(name=_name(step, mark), mark=mark) for step, mark in marks.items()],
        rows=[
            FilmRow(
                prompt=words.shorten(prompt, 140),
                cells=[_cell(replies.get((prompt, step)), mark) for step, mark in marks.items()],
            )
            for prompt in prompts
        ],
        num_frames=len(frames),
    )


def _mark(step: int, last: int | None) -> str:
    if step == 0:
        return "base"
    return "instruct" if step == last else "hybrid"


def _name(step: int, mark: str) -> str:
    if step == 0:
        return "before"
    return f"the end, step {step}" if mark == "instruct" else f"step {step}"


def _cell(frame: Mapping[str, Any] | None, mark: str) -> FilmCell:
    if frame is None:
        return FilmCell(mark=mark, reply=None)
    log_prob = float(frame["log_prob_end"])
    return FilmCell(
        mark=mark,
        reply=str(frame["reply"]),
        end=f"{log_prob:.2f}",
        end_width=round(FILM_BAR * exp(max(log_prob, -20.0) / 2), 1),
    )
