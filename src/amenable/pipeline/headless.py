"""The whole loop without a person: scripted judges stand in, and everything says so."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from amenable.pipeline import loop
from amenable.pipeline.config import AlignConfig, PrepareConfig
from amenable.pipeline.loop import LoopState
from amenable.pipeline.simulate import judge_what_waits
from amenable.pipeline.stage import Stage, execute, resume
from amenable.records.errors import AmenableError
from amenable.records.run import Run
from amenable.store import runs
from amenable.store.workspace import Workspace

RESULT_FILE = "result.json"
SECONDS_OF = ("prepare", "finetune", "sample", "align", "compare")
NUM_DRAWINGS = 2
"""Pairs of replies to each prompt, judged before Improve: one alone decides too few choices."""


class UnfinishedError(AmenableError):
    """A run of the loop failed; the loop goes on from there at the next start."""


def run_headless(
    workspace: Workspace,
    stages: Mapping[str, Stage],
    prepare: PrepareConfig,
    *,
    base: str,
    on_run: Callable[[Run], None],
    should_leave: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """From nothing, or from where it stood, to the report; gives the one result object.

    After `should_leave` the run at work stops at its next safe point, as an UnfinishedError.
    """
    with workspace.database.write() as session:
        loop.begin(session, prepare, base=base)
    _take_up_again(workspace)
    while (run := _next_run(workspace)) is not None:
        on_run(run)
        ended = execute(workspace, run.id, stages, should_leave=should_leave)
        if ended.status != "done":
            raise UnfinishedError(
                f"Run {ended.id} {ended.status}: {(ended.error or 'it was asked to').rstrip('.')}. "
                "Start again to go on from there."
            )
    return _summary(workspace)


def _take_up_again(workspace: Workspace) -> None:
    """What failed, was stopped or lost its worker is tried once more; of the loop alone."""
    with workspace.database.write() as session:
        runs.requeue_orphans(session, lambda _: False)
        state = LoopState.of(session)
        failed = {step.run.id for step in state.steps if step.status == "failed" and step.run}
        drawn = [runs.get(session, run_id) for run_id in state.judged_pile.runs or ()]
    failed |= {run.id for run in drawn if run.status in ("failed", "stopped")}
    for run_id in sorted(failed):
        resume(workspace, run_id)


def _next_run(workspace: Workspace) -> Run | None:
    with workspace.database.write() as session:
        waiting = runs.list_runs(session, statuses=("queued",))
        if not waiting and _follow(session) is not None:
            waiting = runs.list_runs(session, statuses=("queued",))
    return waiting[-1] if waiting else None


def _follow(session: Session) -> str | None:
    """Judge what waits, go on with the loop, draw once more, and press Improve."""
    state = LoopState.of(session)
    judge_what_waits(session, (state.judged_pile, state.proof_pile), loop.DEFAULT_SEED)
    queued = loop.advance(session)
    if queued is not None:
        return queued
    state = LoopState.of(session)
    if state.has_child or state.step("sample").status != "done":
        return None
    if len(state.judged_pile.runs or ()) < NUM_DRAWINGS:
        return loop.draw_more(session)
    return loop.improve(session, AlignConfig()) if state.can_improve else None


def _summary(workspace: Workspace) -> dict[str, Any]:
    with workspace.database.read() as session:
        state = LoopState.of(session)
        done = runs.list_runs(session, statuses=("done",), limit=1000)
    compare = state.step("compare")
    if compare.status != "done" or compare.run is None:
        raise UnfinishedError(f"The loop cannot go on by itself: {state.next_step.sentence}")
    path = workspace.run_folder(compare.run.id) / RESULT_FILE
    result = json.loads(path.read_text(encoding="utf-8"))
    seconds = {
        stage: round(sum(run.seconds or 0 for run in done if run.stage == stage), 1)
        for stage in SECONDS_OF
    }
    return {
        "workspace": str(workspace.folder),
        "simulated_people": True,
        "models": {
            "base": state.base,
            f"policy_{state.number}": state.parent,
            f"policy_{state.number + 1}": state.child,
        },
        "seconds": seconds,
        "compare": {"rows": result["rows"]},
    }
