"""A person's data file into the workspace: checked row by row, kept whole or not at all."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from amenable.datasets.examples import ConversationExample, Example, PromptExample, opening
from amenable.datasets.read import Reading, ReadRow, read, start_of
from amenable.datasets.strict import Limits, Problem, shown
from amenable.evaluation.graders.constraints import is_met
from amenable.records.check import Check
from amenable.records.errors import (
    AmenableError,
    ConfigError,
    ConflictError,
    DataError,
    WorkspaceError,
)
from amenable.records.seeds import seed_for
from amenable.store.artifacts import hash_file
from amenable.store.database import Database
from amenable.store.library import DatasetEntry, add_dataset, num_examples
from amenable.store.tables import DatasetRow
from amenable.store.workspace import Workspace

EXAM_SEED = 20
"""One for all files, so that a prompt that stands in two of them is sealed in both or in none."""
ENOUGH_FOR_AN_EXAM = 5
"""From so many different prompts on, at least one is sealed, though chance would seal none."""
IN_MEMORY_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What became of a file's rows."""

    stored: int
    rejected: int
    problems: tuple[Problem, ...] = ()
    """One a rejected row, in the order of the file."""
    kind: str
    num_exam: int = 0
    """How many of the stored rows are sealed."""
    is_repeat: bool = False
    """The same file was kept under this name before, and nothing was kept anew."""

    def to_json(self) -> dict[str, object]:
        problems = [problem.to_json() for problem in self.problems]
        return {"stored": self.stored, "rejected": self.rejected, "problems": problems}


def import_file(  # noqa: PLR0913  what one import is, and each has its name at the call
    place: Workspace | Database,
    path: Path,
    *,
    name: str,
    kind: str | None = None,
    licence: str,
    source: str,
    exam_share: float = 0.0,
    limits: Limits | None = None,
) -> ImportResult:
    """Keep the good rows of a file as the data set `name`, and say what is wrong with the others.

    Rows wait in a temporary file until all are read, then go in by one transaction. The same file
    under the same name is recognised by its content: nothing is kept twice, and the result is the
    same. Another file, or another way to read or seal it, is refused as a ConflictError.
    """
    if not 0 <= exam_share < 1:
        raise ConfigError("exam_share", exam_share, must="lie in [0, 1); a fifth is 0.2")
    database = place.database if isinstance(place, Workspace) else place
    limits = limits or Limits()
    start_of(path)
    sha256 = hash_file(path)
    with database.read() as session:
        _refuse_another(session, name, sha256)
    reading = read(path, kind=kind, limits=limits)
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as file:
        staged = _Staged(cast("IO[bytes]", file))
        staged.take(path, reading, limits)
        if hash_file(path) != sha256:
            raise DataError(f"{path.name} changed while it was read; import it again.")
        exam = staged.exam(exam_share)
        entry = DatasetEntry(
            name=name,
            sha256=sha256,
            kind=reading.kind.name,
            source=source,
            licence=licence,
            num_rejected=len(staged.problems),
            problems=tuple(problem.to_json() for problem in staged.problems),
        )
        is_repeat = _switch(database, entry, staged, exam)
    return ImportResult(
        stored=staged.num,
        rejected=len(staged.problems),
        problems=tuple(staged.problems),
        kind=reading.kind.name,
        num_exam=len(exam),
        is_repeat=is_repeat,
    )


def exam_draw(example: Example) -> float:
    """A number in [0, 1) that only the opening decides, whatever its case and spacing.

    A share of the prompts is sealed by taking those below it: never by the order of rows, so that
    twins, and dialogues that begin alike, fall on one side; and more share only adds to the exam.
    """
    plain = " ".join(opening(example).casefold().split())
    return seed_for(EXAM_SEED, "exam", plain) / 2**32


@dataclass(slots=True)
class _Staged:
    """Good rows in a temporary file that vanishes with the process; what is wrong with others."""

    file: IO[bytes]
    num: int = 0
    problems: list[Problem] = field(default_factory=list[Problem])
    draws: list[float] = field(default_factory=list[float])

    def take(self, path: Path, reading: Reading, limits: Limits) -> None:
        for item in map(_with_known_checks, reading.rows):
            if isinstance(item, ReadRow):
                self._keep(item.example)
                continue
            self.problems.append(item)
            if len(self.problems) > limits.max_problems:
                raise DataError(
                    f"{path.name} has more than {limits.max_problems:,} bad rows, of which the "
                    f"first is: {self.problems[0]}."
                )
        if self.num == 0:
            raise DataError(f"{path.name} has no row that can be kept; {self.problems[0]}.")

    def _keep(self, example: Example) -> None:
        self.draws.append(exam_draw(example))
        try:
            self.file.write(json.dumps(example.to_json()).encode() + b"\n")
        except OSError as error:
            folder = tempfile.gettempdir()
            raise WorkspaceError(
                f"Rows cannot wait in {folder}: {error.strerror or error}. Nothing was imported."
            ) from error
        self.num += 1

    def exam(self, share: float) -> frozenset[int]:
        """Positions to seal; of few prompts at least the lowest draw, once there are five."""
        if share == 0:
            return frozenset()
        lowest = min(self.draws)
        is_few = len(set(self.draws)) < ENOUGH_FOR_AN_EXAM
        limit = share if lowest < share or is_few else lowest * (1 + 1e-12)
        return frozenset(n for n, draw in enumerate(self.draws) if draw < limit)

    def bodies(self) -> Iterator[dict[str, Any]]:
        self.file.seek(0)
        return map(json.loads, self.file)


def _with_known_checks(item: ReadRow | Problem) -> ReadRow | Problem:
    """A check that no grader understands would break a comparison later, so it is refused here."""
    if isinstance(item, Problem):
        return item
    example = item.example
    if isinstance(example, (ConversationExample, PromptExample)):
        for position, check in enumerate(example.checks, 1):
            if reason := _check_problem(check):
                return Problem(item.row, "checks", f"check {position}: {reason}")
    return item


def _check_problem(check: Check) -> str | None:
    try:
        is_met(check, "Any text at all.")
    except (AmenableError, ValueError) as error:
        return shown(str(error), 200).rstrip(".")
    return None


def _refuse_another(session: Session, name: str, sha256: str) -> DatasetRow | None:
    """The data set that was made of the same file under this name before."""
    row = session.scalars(select(DatasetRow).where(DatasetRow.name == name)).one_or_none()
    if row is not None and row.sha256 != sha256:
        raise ConflictError(
            f"Another file is kept as {name!r} already (from {row.source}); choose another name."
        )
    return row


def _switch(database: Database, entry: DatasetEntry, staged: _Staged, exam: frozenset[int]) -> bool:
    """All rows in one transaction; True if they were kept before."""
    with database.write() as session:
        before = _refuse_another(session, entry.name, entry.sha256)
        if before is None:
            add_dataset(session, entry, staged.bodies(), exam_positions=exam)
            return False
        _refuse_other_reading(session, before, entry, num_stored=staged.num, num_exam=len(exam))
    return True


def _refuse_other_reading(
    session: Session, row: DatasetRow, entry: DatasetEntry, *, num_stored: int, num_exam: int
) -> None:
    """A repeat must say what was said first, or it would seem to change what it does not."""
    sealed = num_examples(session, row.name, exam=True)
    before = {"kind": row.kind, "licence": row.licence, "rows": row.num_rows, "sealed rows": sealed}
    now = {
        "kind": entry.kind,
        "licence": entry.licence,
        "rows": num_stored,
        "sealed rows": num_exam,
    }
    for what, value in before.items():
        if now[what] != value:
            raise ConflictError(
                f"This file is kept as {row.name!r} already, with another {what}: {value} then, "
                f"{now[what]} now. Choose another name."
            )
