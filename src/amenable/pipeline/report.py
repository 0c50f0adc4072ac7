"""Makes report.html anew from a comparison's stored result: no model is run."""

from pathlib import Path

from amenable.records.errors import NotFoundError
from amenable.reports.compare import comparison_page
from amenable.reports.result import REPORT_FILE, RESULT_FILE, Result, from_json
from amenable.store import runs
from amenable.store.artifacts import write_whole
from amenable.store.workspace import Workspace


def write_report(folder: Path) -> Path:
    """report.html beside result.json, written whole."""
    path = folder / REPORT_FILE
    write_whole(path, comparison_page(read_result(folder)).encode())
    return path


def read_result(folder: Path) -> Result:
    path = folder / RESULT_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError("result of a comparison", folder.name) from None
    return from_json(data)


def newest_comparison(workspace: Workspace) -> str:
    """The id of the newest comparison that ended well."""
    with workspace.database.read() as session:
        found = runs.list_runs(session, stage="compare")
    done = next((run for run in found if run.status == "done"), None)
    if done is None:
        raise NotFoundError("comparison", "newest", known=[run.id for run in found])
    return done.id
