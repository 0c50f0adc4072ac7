"""Samples as rows: replies with all that is needed to say them again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from amenable.records.check import Check
from amenable.records.conversation import Conversation
from amenable.records.errors import NotFoundError
from amenable.records.sample import ModelRef, Sample, SamplingSettings, StopReason
from amenable.store.tables import JudgementRow, RunRow, SampleRow, TaskRow


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSample:
    """A sample with its place in the store."""

    id: int
    sample: Sample
    run_id: str | None
    prompt_key: str
    family: str
    checks: tuple[Check, ...]
    created_at: datetime


def keep_sample(
    session: Session,
    sample: Sample,
    *,
    run_id: str | None,
    prompt_key: str,
    family: str = "",
    checks: Sequence[Check] = (),
) -> int:
    """Keep a sample and return its id; `run_id` is None for what was said in the chat page."""
    row = SampleRow(
        run_id=run_id,
        prompt_key=prompt_key,
        prompt=sample.prompt.to_json(),
        family=family,
        checks=[check.to_json() for check in checks],
        reply=sample.reply,
        model_name=sample.model.name,
        model_sha256=sample.model.sha256,
        settings=asdict(sample.settings),
        seed=sample.seed,
        stop_reason=sample.stop_reason,
        num_tokens=sample.num_tokens,
        created_at=datetime.now(UTC),
    )
    session.add(row)
    session.flush()
    return row.id


def sample(session: Session, sample_id: int) -> KeptSample:
    row = session.get(SampleRow, sample_id)
    if row is None:
        raise NotFoundError("sample", sample_id)
    return as_kept(row)


def samples_of(session: Session, run_id: str) -> list[KeptSample]:
    """All samples of one run, in the order they were kept."""
    query = select(SampleRow).where(SampleRow.run_id == run_id).order_by(SampleRow.id)
    return [as_kept(row) for row in session.scalars(query)]


def samples_of_stage(session: Session, stage: str, versions: Mapping[str, str]) -> list[KeptSample]:
    """All samples of this stage's runs by the same code and libraries, in the order of keeping."""
    runs = session.execute(select(RunRow.id, RunRow.versions).where(RunRow.stage == stage))
    ids = [id_ for id_, theirs in runs if theirs == versions]
    query = select(SampleRow).where(SampleRow.run_id.in_(ids)).order_by(SampleRow.id)
    return [as_kept(row) for row in session.scalars(query)]


def as_kept(row: SampleRow) -> KeptSample:
    settings: dict[str, Any] = {**row.settings, "stop": tuple(row.settings["stop"])}
    return KeptSample(
        id=row.id,
        sample=Sample(
            prompt=Conversation.from_json(row.prompt),
            reply=row.reply,
            model=ModelRef(row.model_name, row.model_sha256),
            settings=SamplingSettings(**settings),
            seed=row.seed,
            stop_reason=cast("StopReason", row.stop_reason),
            num_tokens=row.num_tokens,
        ),
        run_id=row.run_id,
        prompt_key=row.prompt_key,
        family=row.family,
        checks=tuple(Check.from_json(check) for check in row.checks),
        created_at=row.created_at,
    )


def judged_prompts(session: Session) -> frozenset[Conversation]:
    """Prompts of which somebody has judged or skipped a pair of replies: they were seen.

    The words themselves: keys may be numbers of rows, which mean another prompt in another file.
    """
    query = (
        select(SampleRow.prompt)
        .join(TaskRow, TaskRow.left_sample_id == SampleRow.id)
        .join(JudgementRow, JudgementRow.task_id == TaskRow.id)
        .where(JudgementRow.undone_at.is_(None))
    )
    return frozenset(Conversation.from_json(prompt) for prompt in session.scalars(query))
