"""The model card of what leaves the workspace: its lineage, and figures of these very weights."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from amenable.pipeline.compare_sources import lineage_of
from amenable.pipeline.report import read_result
from amenable.records.errors import DataError, NotFoundError
from amenable.reports.model_card import model_card
from amenable.reports.result import Lineage, Result
from amenable.store import library, runs
from amenable.store.workspace import Workspace

CARD_FILE = "README.md"
"""Where programs and people look for it."""


def card_of(workspace: Workspace, name: str) -> str:
    """Figures come from the newest comparison; a name may have meant other weights before."""
    with workspace.database.read() as session:
        sha256 = library.model(session, name).sha256
        found = lineage_of(session, name)
    lineage = {each: _to_pass_on(line) for each, line in found.items()}
    measured = (
        result
        for result in _results(workspace)
        if any((each.name, each.sha256) == (name, sha256) for each in result.models)
    )
    return model_card(name, lineage, next(measured, None))


def _to_pass_on(line: Lineage) -> Lineage:
    """Where a file lay on this machine is nobody else's business."""
    origin = Path(line.facts.get("origin", ""))
    if not origin.is_absolute():
        return line
    return replace(line, facts={**line.facts, "origin": f"a file or folder named {origin.name}"})


def _results(workspace: Workspace) -> Iterator[Result]:
    """Newest first; one that is gone or of an older form leaves a card without its figures."""
    with workspace.database.read() as session:
        found = runs.list_runs(session, stage="compare")
    for run in found:
        if run.status == "done":
            try:
                yield read_result(workspace.run_folder(run.id))
            except (NotFoundError, DataError):
                continue
