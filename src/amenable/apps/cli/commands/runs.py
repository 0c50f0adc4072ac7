"""amenable runs: everything that was executed, to be read, stopped and continued."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tyro

from amenable.apps.cli.options import DEFAULT_WORKSPACE, JsonFlag, WorkspaceFolder, again
from amenable.apps.cli.out import Out
from amenable.apps.cli.places import existing, needs_training_packages
from amenable.apps.web import words

if TYPE_CHECKING:
    from amenable.records.run import Run

LONGEST_CELL = 60


@dataclass(frozen=True, kw_only=True)
class ListArguments:
    limit: int = 30
    """At most so many."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


@dataclass(frozen=True, kw_only=True)
class ShowArguments:
    run: tyro.conf.Positional[str]
    """Its id, as runs list gives it."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


@dataclass(frozen=True, kw_only=True)
class StopArguments:
    run: tyro.conf.Positional[str]
    """Its id, as runs list gives it."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


@dataclass(frozen=True, kw_only=True)
class ResumeArguments:
    run: tyro.conf.Positional[str]
    """Its id, as runs list gives it."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


def list_runs(arguments: ListArguments, out: Out) -> dict[str, Any]:
    from amenable.apps.cli.working import as_json
    from amenable.store import runs

    with existing(arguments.workspace) as workspace, workspace.database.read() as session:
        found = runs.list_runs(session, limit=max(1, arguments.limit))
    if found:
        rows = [
            (
                run.id,
                run.status,
                words.moment(run.created_at),
                words.duration(run.seconds),
                words.shorten(words.roles(run.inputs), LONGEST_CELL),
                words.shorten(_outcome(run), LONGEST_CELL),
            )
            for run in found
        ]
        out.table(("Run", "Status", "Begun", " Took", "From", "Made, or why not"), rows)
    else:
        out.say(f"Nothing was executed yet: {again('start', arguments.workspace)}")
    return {"runs": [as_json(run) for run in found]}


def _outcome(run: "Run") -> str:
    if run.status == "failed":
        return run.error or ""
    return words.roles(run.outputs)


def show(arguments: ShowArguments, out: Out) -> dict[str, Any]:
    from amenable.apps.cli.live import glance
    from amenable.apps.cli.working import as_json
    from amenable.pipeline.progress import read_metrics, read_progress
    from amenable.store import runs

    with existing(arguments.workspace) as workspace:
        with workspace.database.read() as session:
            run = runs.get(session, arguments.run)
        folder = workspace.run_folder(run.id)
        progress, metrics = read_progress(folder), read_metrics(folder)
    last = metrics[-1] if metrics else {}
    out.say(glance(run, progress, last.get("loss")).line if progress else run.id)
    for about, fact in _facts(run).items():
        if fact:
            out.say(f"  {about}: {fact}")
    out.say(f"  Folder: {folder}")
    if run.status in ("failed", "stopped"):
        out.say(f"Go on with: {again(f'runs resume {run.id}', arguments.workspace)}")
    return as_json(run) | {"folder": str(folder), "last_metrics": last}


def _facts(run: "Run") -> dict[str, str]:
    return {
        "Status": run.status,
        "Error": run.error or "",
        "Begun": words.moment(run.created_at),
        "Took": words.duration(run.seconds) if run.seconds else "",
        "Memory at most": words.size(run.peak_memory_bytes) if run.peak_memory_bytes else "",
        "From": _pairs(run.inputs),
        "Made": words.roles(run.outputs) if run.outputs else "",
        "Seed": str(run.seed),
        "Knobs": json.dumps(dict(run.config)),
        "Versions": _pairs(run.versions),
    }


def _pairs(values: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def stop(arguments: StopArguments, out: Out) -> dict[str, Any]:
    from amenable.apps.cli.working import as_json
    from amenable.pipeline.processes import is_alive
    from amenable.store import runs

    with existing(arguments.workspace) as workspace, workspace.database.write() as session:
        runs.requeue_orphans(session, is_alive)  # a dead worker would never hear of it
        before = runs.get(session, arguments.run).status
        runs.request_stop(session, arguments.run)
        run = runs.get(session, arguments.run)
    if before in runs.FINISHED:
        out.say(f"Run {run.id} is {run.status} already.")
    elif run.status == "running":
        out.say(f"Run {run.id} stops at its next safe point.")
    else:
        out.say(f"Run {run.id} is stopped.")
    return as_json(run)


def resume(arguments: ResumeArguments, out: Out) -> dict[str, Any]:
    needs_training_packages()
    from amenable.apps.cli.working import as_json, see_through
    from amenable.pipeline.processes import is_alive
    from amenable.store import runs

    with existing(arguments.workspace) as workspace:
        with workspace.database.write() as session:
            if arguments.run not in runs.requeue_orphans(session, is_alive):
                runs.requeue(session, arguments.run)
        run = see_through(workspace, out, arguments.run)
    out.say(f"More on it: {again(f'runs show {run.id}', arguments.workspace)}")
    return as_json(run)
