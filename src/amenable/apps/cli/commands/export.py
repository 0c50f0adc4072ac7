"""amenable export: a model for other programs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from amenable.apps.cli.options import DEFAULT_WORKSPACE, JsonFlag, WorkspaceFolder
from amenable.apps.cli.out import Out
from amenable.apps.cli.places import existing, needs_training_packages
from amenable.pipeline.config import ExportConfig


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    model: tyro.conf.Positional[str]
    """A model of the library (amenable models list)."""
    folder: tyro.conf.Positional[Path]
    """A folder that is not there yet."""
    config: Annotated[ExportConfig, tyro.conf.arg(name="")] = field(default_factory=ExportConfig)
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


def run(arguments: ExportArguments, out: Out) -> dict[str, Any]:
    needs_training_packages()
    with existing(arguments.workspace) as workspace:
        from amenable.pipeline.export import export_model

        out.say("Writing it, loading it back, and comparing replies …", style="quiet")
        folder = arguments.folder.expanduser().absolute()
        exported = export_model(workspace, arguments.model, folder, arguments.config)
    out.say(f"{arguments.model} is in {exported.folder} ({exported.form}).")
    out.say(f"Loaded back, {exported.same} of {exported.total} replies are the same, word by word.")
    return exported.to_json()
