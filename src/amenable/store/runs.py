"""Runs as rows: queued, taken by one worker at a time, and finished whatever happens."""

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from amenable.records.errors import ConflictError, NotFoundError
from amenable.records.run import Run, RunStatus
from amenable.store.tables import RunRow

STAGE = re.compile(r"[a-z][a-z_]{0,19}")
MOST_ATTEMPTS = 3
"""A run whose worker died this often is given up: it would take the next one with it."""
OPEN: tuple[RunStatus, ...] = ("queued", "running")
FINISHED: tuple[RunStatus, ...] = ("done", "failed", "stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run ended."""

    status: RunStatus
    outputs: Mapping[str, str] = field(default_factory=dict[str, str])
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    error: str | None = None


def queue(
    session: Session,
    *,
    stage: str,
    inputs: Mapping[str, str],
    config: Mapping[str, Any],
    seed: int,
) -> str:
    """Write down a run to be executed; returns its id, such as "finetune-2026-11-22-1a2b"."""
    if not STAGE.fullmatch(stage):
        raise ValueError(f"{stage!r} is no name of a stage")
    now = datetime.now(UTC)
    run_id = _free_id(session, f"{stage.replace('_', '-')}-{now:%Y-%m-%d}")
    newest = session.scalars(select(func.max(RunRow.created_at))).one_or_none()
    session.add(
        RunRow(
            id=run_id,
            stage=stage,
            status="queued",
            inputs=dict(inputs),
            outputs={},
            config=dict(config),
            seed=seed,
            versions={},
            # Later runs stay later, also when the clock was set back: the loop goes by this order.
            created_at=now if newest is None else max(now, newest + timedelta(microseconds=1)),
        )
    )
    session.flush()
    return run_id


def claim_next(session: Session, worker: str) -> Run | None:
    """Give the oldest queued run to one worker, and to nobody else; None if nothing waits."""
    oldest = (
        select(RunRow.id)
        .where(RunRow.status == "queued")
        .order_by(RunRow.created_at, RunRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return _start(session, RunRow.id == oldest, worker)


def start(session: Session, run_id: str, worker: str) -> Run:
    """Take this queued run; a run that somebody else works on is refused."""
    row = _row(session, run_id)
    if row.status == "running" and row.worker == worker:
        return as_run(row)
    run = _start(session, RunRow.id == run_id, worker)
    if run is None:
        raise ConflictError(f"Run {run_id} is {row.status}: only a queued one can be started.")
    return run


def _start(session: Session, which: Any, worker: str) -> Run | None:
    now = datetime.now(UTC)
    claim = (
        update(RunRow)
        .where(which, RunRow.status == "queued")
        .values(
            status="running",
            worker=worker,
            started_at=now,
            heartbeat_at=now,
            finished_at=None,
            error=None,
            attempt=RunRow.attempt + 1,
        )
        .returning(RunRow)
        .execution_options(populate_existing=True)
    )
    row = session.scalars(claim).one_or_none()
    return row and as_run(row)


def heartbeat(session: Session, run_id: str, worker: str) -> bool:
    """Say that the run is alive; False if it is no longer this worker's, who must then leave it."""
    return _change(session, run_id, worker, heartbeat_at=datetime.now(UTC))


def keep_versions(session: Session, run_id: str, worker: str, versions: Mapping[str, str]) -> None:
    _change(session, run_id, worker, versions=dict(versions))


def finish(session: Session, run_id: str, worker: str, end: RunEnd) -> Run:
    """Write down how it ended; a worker that lost the run meanwhile is refused."""
    is_ours = _change(
        session,
        run_id,
        worker,
        status=end.status,
        outputs=dict(end.outputs),
        seconds=end.seconds,
        peak_memory_bytes=end.peak_memory_bytes,
        error=end.error,
        finished_at=datetime.now(UTC),
        worker=None,
    )
    if not is_ours:
        raise ConflictError(f"Run {run_id} was given to another worker; this result is not kept.")
    return get(session, run_id)


def _change(session: Session, run_id: str, holder: str, **values: Any) -> bool:
    change = (
        update(RunRow)
        .where(RunRow.id == run_id, RunRow.worker == holder, RunRow.status == "running")
        .values(**values)
        .returning(RunRow)
        .execution_options(populate_existing=True)
    )
    return session.scalars(change).one_or_none() is not None


def requeue(session: Session, run_id: str) -> Run:
    """Queue the same run again; what its folder holds, such as a checkpoint, is used."""
    row = _row(session, run_id)
    if row.status in OPEN:
        raise ConflictError(f"Run {run_id} is {row.status} already.")
    if row.status == "done":
        raise ConflictError(f"Run {run_id} is done; queue a new one to repeat it.")
    row.status, row.attempt = "queued", 0
    _forget_worker(row)
    session.flush()
    return as_run(row)


def requeue_orphans(session: Session, alive: Callable[[str], bool]) -> list[str]:
    """Runs whose worker died go back into the queue; one that keeps killing workers fails."""
    requeued: list[str] = []
    for row in session.scalars(select(RunRow).where(RunRow.status == "running")):
        if row.worker is not None and alive(row.worker):
            continue
        if row.is_stop_requested:
            row.status, row.finished_at = "stopped", datetime.now(UTC)
        elif row.attempt >= MOST_ATTEMPTS:
            row.status, row.finished_at = "failed", datetime.now(UTC)
            row.error = f"Its worker died or froze {row.attempt} times, perhaps for want of memory."
        else:
            row.status = "queued"
            requeued.append(row.id)
        _forget_worker(row)
    session.flush()
    return requeued


def forgive(session: Session, pid: int) -> None:
    """The end of the worker of this process number was our own doing: its run is not to blame."""
    session.execute(update(RunRow).where(*_of_worker(pid)).values(attempt=RunRow.attempt - 1))


def _of_worker(pid: int) -> tuple[Any, ...]:
    return RunRow.status == "running", RunRow.worker.startswith(f"{pid}@")


def _forget_worker(row: RunRow) -> None:
    row.worker, row.heartbeat_at, row.is_stop_requested = None, None, False


def newest_heartbeat(session: Session, pid: int) -> datetime | None:
    """When the run of the worker with this process number was last heard of; None without a run."""
    return session.scalars(select(func.max(RunRow.heartbeat_at)).where(*_of_worker(pid))).one()


def request_stop(session: Session, run_id: str) -> None:
    """A queued run stops at once, a running one at its next safe point; a finished one stays."""
    row = _row(session, run_id)
    if row.status == "queued":
        row.status, row.finished_at = "stopped", datetime.now(UTC)
    elif row.status == "running":
        row.is_stop_requested = True
    session.flush()


def is_stop_requested(session: Session, run_id: str) -> bool:
    return session.scalars(select(RunRow.is_stop_requested).where(RunRow.id == run_id)).one()


def get(session: Session, run_id: str) -> Run:
    return as_run(_row(session, run_id))


def find(session: Session, run_id: str) -> Run | None:
    row = session.get(RunRow, run_id)
    return row and as_run(row)


def bring(session: Session, run: Run) -> None:
    """Write down a run that was executed elsewhere, or bring its record here up to date."""
    row = RunRow(
        id=run.id,
        stage=run.stage,
        status=run.status,
        inputs=dict(run.inputs),
        outputs=dict(run.outputs),
        config=dict(run.config),
        seed=run.seed,
        versions=dict(run.versions),
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        seconds=run.seconds,
        peak_memory_bytes=run.peak_memory_bytes,
        error=run.error,
    )
    _forget_worker(row)
    session.merge(row)
    session.flush()


def list_runs(
    session: Session,
    *,
    stage: str | None = None,
    statuses: Sequence[RunStatus] = (),
    limit: int = 200,
) -> list[Run]:
    """Newest first."""
    query = select(RunRow).order_by(RunRow.created_at.desc(), RunRow.id.desc()).limit(limit)
    if stage is not None:
        query = query.where(RunRow.stage == stage)
    if statuses:
        query = query.where(RunRow.status.in_(statuses))
    return [as_run(row) for row in session.scalars(query)]


def as_run(row: RunRow) -> Run:
    return Run(
        id=row.id,
        stage=row.stage,
        status=cast("RunStatus", row.status),
        inputs=row.inputs,
        outputs=row.outputs,
        config=row.config,
        seed=row.seed,
        versions=row.versions,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        seconds=row.seconds,
        peak_memory_bytes=row.peak_memory_bytes,
        error=row.error,
    )


def _row(session: Session, run_id: str) -> RunRow:
    row = session.get(RunRow, run_id)
    if row is None:
        newest = session.scalars(select(RunRow.id).order_by(RunRow.created_at.desc()).limit(10))
        raise NotFoundError("run", run_id, known=newest)
    return row


def _free_id(session: Session, start_of_id: str) -> str:
    while True:
        run_id = f"{start_of_id}-{secrets.token_hex(2)}"
        if session.get(RunRow, run_id) is None:
            return run_id
