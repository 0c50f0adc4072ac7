"""The tables: what is kept of models, data, runs, samples, people and their judgements."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from amenable.store.types import UtcTime

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
Json = dict[str, Any]


class Table(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar = {datetime: UtcTime, Json: JSON, list[Any]: JSON}


class SettingRow(Table):
    """One choice of this workspace: accepted licences, where the first loop stands."""

    __tablename__ = "settings"
    key: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[Json]
    updated_at: Mapped[datetime]


class ModelRow(Table):
    """A model in the library; `parent` makes the family tree."""

    __tablename__ = "models"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str] = mapped_column(String(20))  # see store/library.py
    parent: Mapped[str | None] = mapped_column(String(100))  # the model it was trained from
    base: Mapped[str | None] = mapped_column(String(100))  # the backbone under its adapter
    chat_form: Mapped[str] = mapped_column(String(20))  # a name in chat/template.py
    licence: Mapped[str] = mapped_column(String(100))
    origin: Mapped[str] = mapped_column(Text)  # where it came from, in words
    folder: Mapped[str] = mapped_column(Text)  # below the workspace
    run_id: Mapped[str | None] = mapped_column(String(40))
    is_simulated: Mapped[bool] = mapped_column(default=False)  # simulated judgements went into it
    info: Mapped[Json]  # num_parameters, bytes, licence text, notes
    created_at: Mapped[datetime]


class DatasetRow(Table):
    """An imported file or the starter set; `kind` as in datasets/detect.py."""

    __tablename__ = "datasets"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    sha256: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(30))
    source: Mapped[str] = mapped_column(Text)
    licence: Mapped[str] = mapped_column(String(100))
    num_rows: Mapped[int]
    num_rejected: Mapped[int]
    problems: Mapped[list[Any]]  # the first 100: {"row", "key", "reason"}
    created_at: Mapped[datetime]


class ExampleRow(Table):
    """One row of a data set, in the one form that all readers give."""

    __tablename__ = "examples"
    __table_args__ = (UniqueConstraint("dataset_id", "position"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"), index=True)
    position: Mapped[int]
    body: Mapped[Json]
    is_exam: Mapped[bool] = mapped_column(default=False)  # sealed: no training run reads it


class RunRow(Table):
    """See records/run.py."""

    __tablename__ = "runs"
    __table_args__ = (Index(None, "status", "created_at"),)
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    stage: Mapped[str] = mapped_column(String(30))
    status: Mapped[str] = mapped_column(String(10))
    inputs: Mapped[Json]
    outputs: Mapped[Json]
    config: Mapped[Json]
    seed: Mapped[int] = mapped_column(BigInteger)
    versions: Mapped[Json]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    seconds: Mapped[float | None]
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[str | None] = mapped_column(Text)
    worker: Mapped[str | None] = mapped_column(String(100))  # "pid@start": who runs it
    heartbeat_at: Mapped[datetime | None]
    attempt: Mapped[int] = mapped_column(default=0)  # grows with every start; also the fence
    is_stop_requested: Mapped[bool] = mapped_column(default=False)


class SampleRow(Table):
    """See records/sample.py; `prompt_key` names the prompt across models."""

    __tablename__ = "samples"
    __table_args__ = (Index(None, "run_id", "prompt_key"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str | None] = mapped_column(String(40))  # None: said in the chat page
    prompt_key: Mapped[str] = mapped_column(String(100))
    prompt: Mapped[list[Any]]  # messages as in Conversation.to_json
    family: Mapped[str] = mapped_column(String(40), default="")
    checks: Mapped[list[Any]]
    reply: Mapped[str] = mapped_column(Text)
    model_name: Mapped[str] = mapped_column(String(100))
    model_sha256: Mapped[str] = mapped_column(String(64))
    settings: Mapped[Json]
    seed: Mapped[int] = mapped_column(BigInteger)
    stop_reason: Mapped[str] = mapped_column(String(10))
    num_tokens: Mapped[int]
    created_at: Mapped[datetime]


class PersonRow(Table):
    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    is_simulated: Mapped[bool] = mapped_column(default=False)
    about: Mapped[Json]  # for a simulated judge: how reliable, how biased
    created_at: Mapped[datetime]


class TaskRow(Table):
    """One pair of replies to judge, to "improve" or as "proof" (blind pairs of two versions)."""

    __tablename__ = "tasks"
    __table_args__ = (Index(None, "status", "purpose", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    purpose: Mapped[str] = mapped_column(String(10))
    run_id: Mapped[str | None] = mapped_column(String(40))
    left_sample_id: Mapped[int] = mapped_column(ForeignKey("samples.id"))
    right_sample_id: Mapped[int] = mapped_column(ForeignKey("samples.id"))
    status: Mapped[str] = mapped_column(String(10), default="open")  # open, claimed, done, skipped
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    claimed_at: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(
        default=0
    )  # grows with every claim; a stale holder is refused
    created_at: Mapped[datetime]


class JudgementRow(Table):
    """The one log of judgements: data sets for training are derived from it, never the reverse."""

    __tablename__ = "judgements"
    id: Mapped[int] = mapped_column(primary_key=True)
    submission_id: Mapped[str] = mapped_column(String(40), unique=True)  # made in the browser
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"), index=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    choice: Mapped[str] = mapped_column(String(10))  # left, right, tie, both_bad, skip
    reason: Mapped[str] = mapped_column(Text, default="")
    mended: Mapped[str | None] = mapped_column(Text)
    mended_side: Mapped[str | None] = mapped_column(String(5))
    seconds_spent: Mapped[float]
    instruction_version: Mapped[str] = mapped_column(String(20), default="1")
    consent_version: Mapped[str] = mapped_column(String(20), default="1")
    created_at: Mapped[datetime]
    undone_at: Mapped[datetime | None]


class VerdictRow(Table):
    """Thumbs from the chat page."""

    __tablename__ = "verdicts"
    id: Mapped[int] = mapped_column(primary_key=True)
    sample_id: Mapped[int] = mapped_column(ForeignKey("samples.id"), unique=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    is_good: Mapped[bool]
    reason: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
