"""amenable worker: takes queued runs of a workspace, one at a time."""

import logging
import sys
from dataclasses import dataclass

from amenable.apps.cli.options import DEFAULT_WORKSPACE, WorkspaceFolder
from amenable.apps.cli.out import Out
from amenable.apps.cli.places import needs_training_packages, opened


@dataclass(frozen=True, kw_only=True)
class WorkerArguments:
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE


def run(arguments: WorkerArguments, out: Out) -> None:
    needs_training_packages()
    from amenable.apps.cli.working import stages
    from amenable.pipeline import loop
    from amenable.pipeline.worker import run_worker

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", force=True
    )
    with opened(arguments.workspace) as workspace:
        out.say(f"The worker of {workspace.folder} waits for runs.")
        run_worker(workspace, stages(), follow=loop.advance)
