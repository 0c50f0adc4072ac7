"""A stage is recorded whatever happens to it."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from sqlalchemy.orm import Session

from amenable.pipeline import stage
from amenable.pipeline.stage import Context, Stopped, execute, resume
from amenable.records.errors import ConflictError, DataError, WorkspaceError
from amenable.records.run import Run
from amenable.store import runs
from amenable.store.runs import RunEnd
from amenable.store.workspace import Workspace

Work = Callable[[Context], dict[str, str]]


def queue(workspace: Workspace, name: str = "finetune") -> str:
    with workspace.database.write() as session:
        return runs.queue(session, stage=name, inputs={"model": "base"}, config={"a": 1}, seed=5)


def ran(workspace: Workspace, work: Work) -> Run:
    return execute(workspace, queue(workspace), {"finetune": work})


def kept(workspace: Workspace, run_id: str) -> Run:
    with workspace.database.read() as session:
        return runs.get(session, run_id)


def test_a_stage_works_with_its_run_its_folder_and_its_log(workspace: Workspace):
    seen: list[tuple[Path, Run]] = []

    def work(context: Context) -> dict[str, str]:
        seen.append((context.folder, context.run))
        context.log.metrics(1, {"loss": 2.0})
        return {"model": "new"}

    run = ran(workspace, work)

    ((folder, given),) = seen
    assert folder == workspace.runs / run.id
    assert (folder / "metrics.jsonl").exists()
    assert (given.status, given.inputs, given.config, given.seed) == (
        "running",
        {"model": "base"},
        {"a": 1},
        5,
    )
    assert (run.status, run.outputs, run.error) == ("done", {"model": "new"}, None)


def test_the_record_holds_versions_time_and_memory(workspace: Workspace):
    run = kept(workspace, ran(workspace, lambda context: {}).id)

    assert {"amenable", "python", "system"} <= run.versions.keys()
    assert run.seconds is not None
    assert run.seconds >= 0
    assert run.peak_memory_bytes is not None
    assert run.peak_memory_bytes > 10_000_000
    assert run.finished_at is not None


def test_an_error_for_people_is_one_line(workspace: Workspace):
    def work(context: Context) -> dict[str, str]:
        raise DataError("The file has no rows.")

    run = ran(workspace, work)

    assert (run.status, run.error) == ("failed", "The file has no rows.")
    assert list(workspace.logs.iterdir()) == []


def test_a_bug_leaves_one_line_and_its_traceback_in_the_logs(workspace: Workspace):
    def work(context: Context) -> dict[str, str]:
        return {"model": str(1 // len(context.run.outputs))}

    run = ran(workspace, work)

    assert run.status == "failed"
    assert run.error is not None
    assert run.error.startswith("ZeroDivisionError: ")
    assert "\n" not in run.error
    assert "in work" in (workspace.logs / f"{run.id}.log").read_text("utf-8")


class OutOfMemoryError(RuntimeError):
    """As torch's own is made."""


def disk_full() -> SafetensorError:
    return SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left"), "disk is full"),
        (disk_full(), "disk is full"),
        (MemoryError(), "not enough memory"),
        (OSError(12, "Cannot allocate memory"), "not enough memory"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "not enough memory"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), "not enough memory"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
            "not enough memory",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried 1 TB"),
            "not enough memory",
        ),
        (RuntimeError("mat1 and mat2 cannot be multiplied"), "a fault of this program"),
    ],
)
def test_common_faults_of_machines_say_what_helps(
    workspace: Workspace, error: Exception, says: str
):
    def work(context: Context) -> dict[str, str]:
        raise error

    run = ran(workspace, work)

    assert run.error is not None
    assert says in run.error
    assert ("a fault of this program" in run.error) == (says == "a fault of this program")


def test_what_torch_itself_says_of_memory_is_understood(workspace: Workspace):
    def work(context: Context) -> dict[str, str]:
        torch.empty(1 << 50, dtype=torch.uint8)
        return {}

    assert str(ran(workspace, work).error).startswith("There was not enough memory")


def test_a_traceback_that_cannot_be_written_hides_no_error(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    def no_room(path: Path, data: bytes) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, "write_whole", no_room)

    def work(context: Context) -> dict[str, str]:
        raise ZeroDivisionError("a bug")

    run = ran(workspace, work)

    assert (run.status, run.error) == (
        "failed",
        "ZeroDivisionError: a bug (a fault of this program). "
        "Its details could not be written down.",
    )


def test_a_folder_that_cannot_be_made_fails_the_run_alone(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    def no_room(run_id: str) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workspace, "run_folder", no_room)

    run = ran(workspace, lambda context: {})

    assert run.status == "failed"
    assert "disk is full" in str(run.error)


def full_for(
    num_times: int, monkeypatch: pytest.MonkeyPatch, *, tries: list[str] | None = None
) -> None:
    """The database takes no end of a run so many times."""
    finish, tried = runs.finish, [] if tries is None else tries

    def full_at_first(session: Session, run_id: str, worker: str, end: RunEnd) -> Run:
        tried.append(run_id)
        if len(tried) <= num_times:
            raise WorkspaceError("The disk is full: nothing was kept.")
        return finish(session, run_id, worker, end)

    monkeypatch.setattr(stage, "RECORD_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(runs, "finish", full_at_first)


def test_the_end_of_a_run_waits_for_room(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    full_for(3, monkeypatch)

    def work(context: Context) -> dict[str, str]:
        raise disk_full()

    run = ran(workspace, work)

    assert (run.status, run.error) == (
        "failed",
        "The disk is full. Free some room, then continue this run.",
    )


@pytest.mark.parametrize(("seconds", "leaves"), [(0.0, False), (60.0, True)])
def test_the_end_of_a_run_does_not_wait_for_ever_nor_for_one_who_leaves(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, seconds: float, leaves: bool
):
    monkeypatch.setattr(stage, "RECORD_SECONDS", seconds)
    tries: list[str] = []
    full_for(100, monkeypatch, tries=tries)

    with pytest.raises(WorkspaceError, match="disk is full"):
        execute(
            workspace,
            queue(workspace),
            {"finetune": lambda context: {}},
            should_leave=lambda: leaves,
        )

    assert len(tries) == 1


def test_a_stage_that_nobody_knows_fails_with_the_known_ones(workspace: Workspace):
    run = execute(workspace, queue(workspace, "dream"), {"finetune": lambda context: {}})

    assert run.status == "failed"
    assert run.error == "There is no stage 'dream'. There are: finetune."


def test_a_stop_request_reaches_the_stage(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stage, "PULSE_SECONDS", 0.01)

    def work(context: Context) -> dict[str, str]:
        with workspace.database.write() as session:
            runs.request_stop(session, context.run.id)
        while True:
            context.stop_here()
            threading.Event().wait(0.005)

    assert ran(workspace, work).status == "stopped"


def test_what_was_finished_in_spite_of_a_stop_request_is_done(workspace: Workspace):
    def work(context: Context) -> dict[str, str]:
        with workspace.database.write() as session:
            runs.request_stop(session, context.run.id)
        return {"model": "new"}

    assert ran(workspace, work).status == "done"


def test_a_program_that_leaves_stops_the_stage(workspace: Workspace):
    def work(context: Context) -> dict[str, str]:
        context.stop_here()
        return {}

    run = execute(workspace, queue(workspace), {"finetune": work}, should_leave=lambda: True)

    assert run.status == "stopped"


def test_ctrl_c_is_recorded_and_goes_on_to_the_caller(workspace: Workspace):
    run_id = queue(workspace)

    def work(context: Context) -> dict[str, str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(workspace, run_id, {"finetune": work})

    assert kept(workspace, run_id).status == "stopped"


def test_a_resumed_run_goes_on_in_its_folder_and_adds_up_its_time(workspace: Workspace):
    def work(context: Context) -> dict[str, str]:
        checkpoint = context.folder / "checkpoint"
        if not checkpoint.exists():
            checkpoint.write_text("step 7")
            raise Stopped
        return {"from": checkpoint.read_text()}

    run_id = queue(workspace)
    first = execute(workspace, run_id, {"finetune": work})
    assert (first.status, resume(workspace, run_id).status) == ("stopped", "queued")
    second = execute(workspace, run_id, {"finetune": work})

    assert (second.status, second.outputs) == ("done", {"from": "step 7"})
    assert second.seconds is not None
    assert first.seconds is not None
    assert second.seconds >= first.seconds


def test_a_finished_run_is_not_executed_again(workspace: Workspace):
    run = ran(workspace, lambda context: {})

    with pytest.raises(ConflictError, match="is done"):
        execute(workspace, run.id, {"finetune": lambda context: {}})


def test_a_run_given_to_another_worker_keeps_no_result_of_this_one(workspace: Workspace):
    def work(context: Context) -> dict[str, str]:
        with workspace.database.write() as session:
            runs.requeue_orphans(session, alive=lambda worker: False)
            runs.claim_next(session, "2@2.00")
        return {"model": "too late"}

    run_id = queue(workspace)
    with pytest.raises(ConflictError, match="another worker"):
        execute(workspace, run_id, {"finetune": work})

    run = kept(workspace, run_id)
    assert (run.status, run.outputs) == ("running", {})


def test_who_lost_the_run_is_told_to_stop(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stage, "PULSE_SECONDS", 0.01)
    monkeypatch.setattr(stage, "HEARTBEAT_SECONDS", 0.01)

    def work(context: Context) -> dict[str, str]:
        with workspace.database.write() as session:
            runs.requeue_orphans(session, alive=lambda worker: False)
            runs.claim_next(session, "2@2.00")
        while True:
            context.stop_here()
            threading.Event().wait(0.005)

    with pytest.raises(ConflictError, match="another worker"):
        ran(workspace, work)


def test_a_database_that_is_busy_for_a_moment_ends_no_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stage, "PULSE_SECONDS", 0.01)
    looks: list[str] = []
    ask = runs.is_stop_requested

    def busy_at_first(session: object, run_id: str) -> bool:
        looks.append(run_id)
        if len(looks) < 3:
            raise WorkspaceError("The workspace is busy.")
        return ask(session, run_id)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(runs, "is_stop_requested", busy_at_first)

    def work(context: Context) -> dict[str, str]:
        while len(looks) < 5:
            threading.Event().wait(0.005)
        return {"model": "new"}

    assert ran(workspace, work).status == "done"
