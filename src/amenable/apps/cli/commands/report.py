"""amenable report: the page of a comparison, as one file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from amenable.apps.cli.options import DEFAULT_WORKSPACE, JsonFlag, NoDefault, WorkspaceFolder, again
from amenable.apps.cli.out import Out
from amenable.apps.cli.places import existing
from amenable.records.errors import NotFoundError, WorkspaceError


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    run: Annotated[tyro.conf.Positional[str | None], NoDefault] = None
    """The comparison's run (amenable runs list); the newest one if not said."""
    out: Annotated[Path | None, NoDefault] = None
    """Where to write it; beside the run's result if not said."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


def run(arguments: ReportArguments, out: Out) -> dict[str, Any]:
    from amenable.pipeline.report import newest_comparison, write_report
    from amenable.store import runs
    from amenable.store.artifacts import write_whole

    with existing(arguments.workspace) as workspace:
        try:
            run_id = arguments.run or newest_comparison(workspace)
        except NotFoundError:
            hint = again("compare BASE MODEL", arguments.workspace)
            raise WorkspaceError(f"Nothing was compared here yet: {hint}") from None
        with workspace.database.read() as session:
            runs.get(session, run_id)
        path = write_report(workspace.run_folder(run_id))
    if arguments.out is not None:
        write_whole(arguments.out.absolute(), path.read_bytes())
        path = arguments.out.absolute()
    out.say(f"Report: {path} (open it in a browser)")
    return {"run": run_id, "report": str(path)}
