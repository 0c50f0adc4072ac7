"""Models and data sets by name and content hash, and how the models descend from each other."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import func, insert, or_, select
from sqlalchemy.orm import Session

from amenable.records.errors import ConfigError, ConflictError, ModelError, NotFoundError
from amenable.store.runs import OPEN
from amenable.store.tables import DatasetRow, ExampleRow, ModelRow, RunRow

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
PRETRAINED_ON = "pretrained_on"
"""In the `info` of a base that was pretrained here: its data sets."""
IN_FOUR_BITS = "base_in_four_bits"
"""In the `info` of a version whose base was in 4 bits while it learned."""
REWARD = "reward"
"""The kind of models that score replies."""
KINDS = ("base", "policy", "instruct", REWARD)
ROWS_AT_ONCE = 1000
NUM_PROBLEMS_KEPT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """What the library knows of a model; `folder` is its place below the workspace."""

    name: str
    sha256: str
    kind: str
    """base, policy, instruct (ready-made by others), or reward (scores replies, and says none)."""
    chat_form: str
    licence: str
    origin: str
    folder: str
    parent: str | None = None
    base: str | None = None
    run_id: str | None = None
    is_simulated: bool = False
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetEntry:
    """What the library knows of a data set, beside its rows."""

    name: str
    sha256: str
    kind: str
    source: str
    licence: str = "not stated"
    num_rejected: int = 0
    problems: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class FamilyNode:
    """A model and the models trained from it."""

    model: ModelRow
    children: tuple["FamilyNode", ...]


def add_model(session: Session, entry: ModelEntry) -> ModelRow:
    """Keep a model; the same model under the same name is no conflict, so a repeat is harmless."""
    _check_name("name", entry.name)
    _check_folder(entry.folder)
    for ancestor in {entry.parent, entry.base} - {None, entry.name}:
        assert ancestor is not None
        model(session, ancestor)
    existing = session.scalars(select(ModelRow).where(ModelRow.name == entry.name)).one_or_none()
    if existing is not None:
        if existing.sha256 != entry.sha256:
            raise ConflictError(f"Another model is called {entry.name!r} already.")
        return existing
    row = ModelRow(
        name=entry.name,
        sha256=entry.sha256,
        kind=entry.kind,
        parent=entry.parent,
        base=entry.base,
        chat_form=entry.chat_form,
        licence=entry.licence,
        origin=entry.origin,
        folder=entry.folder,
        run_id=entry.run_id,
        is_simulated=entry.is_simulated,
        info=dict(entry.info),
        created_at=datetime.now(UTC),
    )
    session.add(row)
    session.flush()
    return row


def model(session: Session, name: str) -> ModelRow:
    row = session.scalars(select(ModelRow).where(ModelRow.name == name)).one_or_none()
    if row is None:
        raise NotFoundError("model", name, known=session.scalars(select(ModelRow.name)))
    return row


def is_made_here(row: ModelRow) -> bool:
    """Whether it was trained in this workspace, so that it can be brought again from nowhere."""
    return row.kind in ("policy", REWARD) or PRETRAINED_ON in row.info


def models(session: Session) -> list[ModelRow]:
    """Oldest first, so that parents stand before their children."""
    return list(session.scalars(select(ModelRow).order_by(ModelRow.id)))


def speaker(session: Session, name: str) -> ModelRow:
    """A model that replies: a reward model of this name is refused."""
    return that_speaks(model(session, name))


def that_speaks(row: ModelRow) -> ModelRow:
    if row.kind == REWARD:
        raise ModelError(
            f"{row.name} is a reward model: it scores replies, and says nothing itself."
        )
    return row


def speakers(session: Session) -> list[ModelRow]:
    """All models that reply, oldest first."""
    return [row for row in models(session) if row.kind != REWARD]


def family_tree(session: Session) -> list[FamilyNode]:
    """Models without a parent here, each with what was trained from it."""
    rows = models(session)
    names = {row.name for row in rows}
    children: dict[str | None, list[ModelRow]] = {}
    for row in rows:
        children.setdefault(row.parent if row.parent in names else None, []).append(row)

    def node(row: ModelRow) -> FamilyNode:
        return FamilyNode(row, tuple(node(child) for child in children.get(row.name, ())))

    return [node(row) for row in children.get(None, ())]


def remove_model(session: Session, name: str) -> str:
    """Forget a model; returns its folder, for the caller to delete after the commit."""
    row = model(session, name)
    if children := _children(session, name):
        raise ConflictError(f"{name!r} stays: {', '.join(children)} was made from it.")
    if users := _users(session, name):
        raise ConflictError(f"{name!r} stays: {', '.join(users)} works with it.")
    session.delete(row)
    session.flush()
    return row.folder


def free_name(session: Session, wanted: str) -> str:
    """The wanted name, or the first free one after it: "wanted-2".

    A version that was removed keeps its name: runs and votes that name it are about it alone.
    """
    return _free(wanted, {*session.scalars(select(ModelRow.name)), *_trained(session)})


def add_dataset(
    session: Session,
    entry: DatasetEntry,
    bodies: Iterable[Mapping[str, object]],
    *,
    exam_positions: Collection[int] = (),
) -> DatasetRow:
    """Keep a data set with its rows; it never changes afterwards, so runs can name it.

    Rows at `exam_positions` are sealed: they measure, and no training run reads them.
    """
    _check_name("name", entry.name)
    existing = session.scalars(
        select(DatasetRow).where(DatasetRow.name == entry.name)
    ).one_or_none()
    if existing is not None:
        if existing.sha256 != entry.sha256:
            raise ConflictError(f"Another data set is called {entry.name!r} already.")
        return existing
    row = DatasetRow(
        name=entry.name,
        sha256=entry.sha256,
        kind=entry.kind,
        source=entry.source,
        licence=entry.licence,
        num_rows=0,
        num_rejected=entry.num_rejected,
        problems=[dict(problem) for problem in entry.problems[:NUM_PROBLEMS_KEPT]],
        created_at=datetime.now(UTC),
    )
    session.add(row)
    session.flush()
    row.num_rows = _insert_examples(session, row.id, bodies, exam_positions)
    session.flush()
    return row


def free_dataset_name(session: Session, wanted: str) -> str:
    """As `free_name`, among data sets."""
    return _free(wanted, set(session.scalars(select(DatasetRow.name))))


def dataset(session: Session, name: str) -> DatasetRow:
    row = session.scalars(select(DatasetRow).where(DatasetRow.name == name)).one_or_none()
    if row is None:
        raise NotFoundError("data set", name, known=session.scalars(select(DatasetRow.name)))
    return row


def datasets(session: Session) -> list[DatasetRow]:
    return list(session.scalars(select(DatasetRow).order_by(DatasetRow.id)))


def examples(session: Session, name: str, *, exam: bool = False) -> list[dict[str, Any]]:
    """The rows in their order: those to train on, or with `exam` the sealed ones."""
    query = (
        select(ExampleRow.body)
        .where(ExampleRow.dataset_id == dataset(session, name).id, ExampleRow.is_exam == exam)
        .order_by(ExampleRow.position)
    )
    return list(session.scalars(query))


def num_examples(session: Session, name: str, *, exam: bool = False) -> int:
    query = select(func.count(ExampleRow.id)).where(
        ExampleRow.dataset_id == dataset(session, name).id, ExampleRow.is_exam == exam
    )
    return session.scalars(query).one()


def _insert_examples(
    session: Session,
    dataset_id: int,
    bodies: Iterable[Mapping[str, object]],
    exam_positions: Collection[int],
) -> int:
    rows = (
        {
            "dataset_id": dataset_id,
            "position": position,
            "body": dict(body),
            "is_exam": position in exam_positions,
        }
        for position, body in enumerate(bodies)
    )
    num_rows = 0
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        session.execute(insert(ExampleRow), batch)
        num_rows += len(batch)
    return num_rows


def _children(session: Session, name: str) -> list[str]:
    query = select(ModelRow.name).where(
        or_(ModelRow.parent == name, ModelRow.base == name), ModelRow.name != name
    )
    return list(session.scalars(query.order_by(ModelRow.id)))


def _users(session: Session, name: str) -> list[str]:
    """Runs to come or at work that read this model; an input may name several, by commas."""
    runs = session.execute(select(RunRow.id, RunRow.inputs).where(RunRow.status.in_(OPEN)))
    return [
        run_id
        for run_id, inputs in runs
        if any(name in str(value).split(",") for value in inputs.values())
    ]


def _trained(session: Session) -> set[str]:
    """What runs made, removed or not; what came from elsewhere comes again under its own name."""
    query = select(RunRow.inputs, RunRow.outputs).where(
        RunRow.status == "done", RunRow.stage != "prepare"
    )
    made = (
        (inputs.get("model"), outputs.get("model")) for inputs, outputs in session.execute(query)
    )
    return {name for source, name in made if name is not None and name != source}


def _free(wanted: str, taken: Collection[str]) -> str:
    _check_name("name", wanted)
    candidates = (wanted if number == 1 else f"{wanted}-{number}" for number in count(1))
    return next(name for name in candidates if name not in taken)


def _check_name(what: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(
            what,
            name,
            must="have 1 to 80 letters, digits or . _ - and begin with a letter or digit",
        )


def _check_folder(folder: str) -> None:
    path = PurePosixPath(folder)
    if not folder or "\\" in folder or ":" in folder or path.is_absolute() or ".." in path.parts:
        raise ConfigError("folder", folder, must="lie below the workspace")
