"""What the pages read, straight from the tables and never writing."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Select, exists, func, select
from sqlalchemy.orm import Session

from amenable.apps.web import words
from amenable.pipeline import costs
from amenable.pipeline.sources import STARTER_DEMONSTRATIONS, Sources
from amenable.records.errors import DataError
from amenable.records.run import Run
from amenable.reports.result import RESULT_FILE, Result, from_json
from amenable.starter import load as starter
from amenable.store import runs as run_store
from amenable.store.tables import (
    DatasetRow,
    ExampleRow,
    JudgementRow,
    ModelRow,
    PersonRow,
    RunRow,
    SampleRow,
    TaskRow,
)


def is_simulated(session: Session) -> bool:
    """Whether any judgement that still counts came from a scripted judge."""
    by_script = (
        exists()
        .where(JudgementRow.person_id == PersonRow.id, JudgementRow.undone_at.is_(None))
        .where(PersonRow.is_simulated)
    )
    return bool(session.scalar(select(by_script)))


def first_type(session: Session, dataset_id: int) -> str:
    """What the rows of a data set are: "conversation", "prompt", …; a data set holds one type."""
    body = session.scalar(
        select(ExampleRow.body).where(ExampleRow.dataset_id == dataset_id).limit(1)
    )
    return str(body["type"]) if body else ""


def num_demonstrations(session: Session) -> int:
    """Demonstrations that training reads: the starter set, people's own, or both."""
    names = set(Sources.of(session).demonstrations)
    count = (
        select(func.count(ExampleRow.id))
        .join(DatasetRow, DatasetRow.id == ExampleRow.dataset_id)
        .where(DatasetRow.name.in_(names), ExampleRow.is_exam.is_(False))
    )
    found = session.scalar(count) or 0
    if not found and STARTER_DEMONSTRATIONS in names:  # not installed yet: the loop will do it
        return len(starter.demonstrations())
    return found


def cost_words(session: Session, *stages: str) -> str:
    """What stages together cost, in time and memory; "" while nothing was measured here.

    As planned for the loop's base, else as long as the last run took.
    """
    planned = costs.of_loop(session)
    seconds = [
        planned[stage].seconds if stage in planned else _last_seconds(session, stage)
        for stage in stages
    ]
    known = [each for each in seconds if each is not None]
    if not known:
        return ""
    memory = max((planned[stage].memory_bytes for stage in stages if stage in planned), default=0)
    return words.about(sum(known)) + (f", {words.size(memory)} of memory" if memory else "")


def _last_seconds(session: Session, stage: str) -> float | None:
    last = (
        select(RunRow.seconds)
        .where(RunRow.stage == stage, RunRow.status == "done", RunRow.seconds.is_not(None))
        .order_by(RunRow.created_at.desc())
        .limit(1)
    )
    return session.scalar(last)


def newest_run(session: Session, stage: str, *, status: str = "done") -> Run | None:
    row = session.scalars(_newest_first(stage, status).limit(1)).one_or_none()
    return row and run_store.as_run(row)


def _newest_first(stage: str, status: str) -> Select[RunRow]:
    runs = select(RunRow).where(RunRow.stage == stage, RunRow.status == status)
    return runs.order_by(RunRow.created_at.desc())


def live_run(session: Session) -> Run | None:
    """The run at work; else the one that waits longest."""
    for status in ("running", "queued"):
        row = session.scalars(
            select(RunRow).where(RunRow.status == status).order_by(RunRow.created_at).limit(1)
        ).one_or_none()
        if row:
            return run_store.as_run(row)
    return None


@dataclass(frozen=True, slots=True)
class Comparing:
    """A comparison: its run and what it measured."""

    run: Run
    result: Result


def newest_comparison(session: Session, runs_folder: Path) -> Comparing | None:
    """The newest one that can be read.

    A result that is damaged, or of another version of Amenable, must not take away the pages that
    show it: the button that measures anew stands on one of them.
    """
    for row in session.scalars(_newest_first("compare", "done")):
        path = runs_folder / row.id / RESULT_FILE
        with suppress(DataError, OSError):
            return Comparing(run_store.as_run(row), _read_result(path, path.stat().st_mtime_ns))
    return None


def is_newest_unread(session: Session, comparing: Comparing | None) -> bool:
    """Whether models were compared later than in what could be read."""
    newest = newest_run(session, "compare")
    return newest is not None and (comparing is None or comparing.run.id != newest.id)


@lru_cache(maxsize=4)
def _read_result(path: Path, _: int) -> Result:
    """Files are written whole and not changed; the second argument tells a new one from an old."""
    return from_json(path.read_bytes())


def report_file(session: Session, runs_folder: Path) -> Path | None:
    """The self-contained report of the newest comparison."""
    run = newest_run(session, "compare")
    path = runs_folder / run.id / "report.html" if run else None
    return path if path and path.is_file() else None


def model_rows(session: Session) -> list[ModelRow]:
    return list(session.scalars(select(ModelRow).order_by(ModelRow.id)))


def model_kinds(session: Session) -> dict[str, str]:
    return dict(session.execute(select(ModelRow.name, ModelRow.kind)).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetView:
    name: str
    kind: str
    type: str
    num_rows: int
    num_exam: int
    num_rejected: int
    licence: str
    source: str
    problems: Sequence[Mapping[str, Any]]

    @property
    def kind_words(self) -> str:
        return words.TYPE_WORDS.get(self.type, words.plain(self.kind))


def datasets(session: Session) -> list[DatasetView]:
    exam = dict(
        session.execute(
            select(ExampleRow.dataset_id, func.count(ExampleRow.id))
            .where(ExampleRow.is_exam)
            .group_by(ExampleRow.dataset_id)
        ).all()
    )
    rows = session.scalars(select(DatasetRow).order_by(DatasetRow.id))
    return [
        DatasetView(
            name=row.name,
            kind=row.kind,
            type=first_type(session, row.id),
            num_rows=row.num_rows,
            num_exam=exam.get(row.id, 0),
            num_rejected=row.num_rejected,
            licence=row.licence,
            source=row.source,
            problems=row.problems,
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """A prompt with a reply to it, from a comparison."""

    key: str
    family: str
    prompt: list[dict[str, str]]
    reply: str
    checks: list[dict[str, Any]]
    stop_reason: str


def compared_replies(session: Session, run_id: str, model: str) -> list[ReadPrompt]:
    """The newest reply of the model, as it is now, to each prompt that it was compared on.

    A comparison asks for nothing that an earlier one by the same code has heard, so its own
    samples may be few or none.
    """
    versions = run_store.get(session, run_id).versions
    runs = session.execute(select(RunRow.id, RunRow.versions).where(RunRow.stage == "compare"))
    alike = [id_ for id_, theirs in runs if theirs == versions]
    sha256 = select(ModelRow.sha256).where(ModelRow.name == model).scalar_subquery()
    rows = session.scalars(
        select(SampleRow)
        .where(
            SampleRow.run_id.in_(alike),
            SampleRow.model_name == model,  # a helped base has the same weights
            SampleRow.model_sha256 == sha256,
        )
        .order_by(SampleRow.id)
    )
    newest = {row.prompt_key: row for row in rows}
    return [
        ReadPrompt(row.prompt_key, row.family, row.prompt, row.reply, row.checks, row.stop_reason)
        for row in newest.values()
    ]


def num_open_tasks(session: Session, purpose: str) -> int:
    return (
        session.scalar(
            select(func.count(TaskRow.id)).where(
                TaskRow.purpose == purpose, TaskRow.status.in_(("open", "claimed"))
            )
        )
        or 0
    )


def stages_of_runs(session: Session, ids: Sequence[str]) -> dict[str, str]:
    rows = session.execute(select(RunRow.id, RunRow.stage).where(RunRow.id.in_(ids)))
    return dict(rows.all())


def people_say(session: Session) -> str:
    """Who judged, and how much, in one sentence."""
    counts = session.execute(
        select(PersonRow.is_simulated, func.count(), func.count(PersonRow.id.distinct()))
        .join(JudgementRow, JudgementRow.person_id == PersonRow.id)
        .where(JudgementRow.undone_at.is_(None), JudgementRow.choice != "skip")
        .group_by(PersonRow.is_simulated)
        .order_by(PersonRow.is_simulated)
    )
    parts = [_judged(is_scripted, judged, people) for is_scripted, judged, people in counts]
    return " and ".join(parts) and " and ".join(parts) + "."


def _judged(is_scripted: bool, judged: int, people: int) -> str:  # noqa: FBT001  a column
    who = "simulated judge" if is_scripted else "person"
    many = "simulated judges" if is_scripted else "people"
    pairs = "pair" if judged == 1 else "pairs"
    return f"{words.thousands(judged)} {pairs} judged by {people} {who if people == 1 else many}"


def num_parameters(session: Session, model: str) -> str:
    """As it stands inside a circle: "268M", or nothing while it is not known."""
    info = session.scalar(select(ModelRow.info).where(ModelRow.name == model))
    number = info.get("num_parameters") if info else None
    if not number:
        return ""
    return f"{number / 1e9:.1f}B" if number >= 1e9 else f"{number / 1e6:.0f}M"


def pulse(session: Session) -> str:
    """Changes whenever the loop has moved on: a page that waits looks for it."""
    counts = session.execute(
        select(RunRow.status, func.count()).group_by(RunRow.status).order_by(RunRow.status)
    ).all()
    newest = session.scalar(select(RunRow.id).order_by(RunRow.created_at.desc()).limit(1))
    waiting = num_open_tasks(session, "improve") + num_open_tasks(session, "proof")
    return "-".join(
        [newest or "none", *(f"{status}{count}" for status, count in counts), str(waiting)]
    )
