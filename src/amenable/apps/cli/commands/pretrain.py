"""amenable pretrain: a base model from plain text, executed here or by the worker."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from amenable.apps.cli.options import (
    DEFAULT_WORKSPACE,
    SEED,
    JsonFlag,
    NoDefault,
    WorkspaceFolder,
    again,
)
from amenable.apps.cli.out import Out, UsageError
from amenable.apps.cli.places import existing, needs_training_packages
from amenable.pipeline.config import PretrainConfig

if TYPE_CHECKING:
    from amenable.records.run import Run


@dataclass(frozen=True, kw_only=True)
class PretrainArguments:
    datasets: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="DATASET …", help_behavior_hint=""),
    ]
    """Data sets of plain text (amenable data list)."""
    model: Annotated[str | None, NoDefault] = None
    """The base that goes on learning; without it, a new and small one is made."""
    config: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=PretrainConfig
    )
    seed: int = SEED
    """Decides everything that is drawn by chance."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


def run(arguments: PretrainArguments, out: Out) -> dict[str, Any]:
    needs_training_packages()
    if not arguments.datasets:
        raise UsageError("Missing: DATASET, at least one. See amenable pretrain --help.")
    from amenable.apps.cli.working import as_json, see_through
    from amenable.pipeline.begin import begin

    inputs = {"data": ",".join(arguments.datasets)}
    if arguments.model is not None:
        inputs["model"] = arguments.model
    with existing(arguments.workspace) as workspace:
        with workspace.database.write() as session:
            run_id = begin(session, "pretrain", inputs, arguments.config, arguments.seed)
        out.say(f"Run {run_id}", style="quiet")
        ended = see_through(workspace, out, run_id)
    _say(ended, out, arguments.workspace)
    return as_json(ended)


def _say(ended: "Run", out: Out, folder: Path) -> None:
    from amenable.apps.web import words

    said = dict(ended.outputs)
    name = said.pop("model")
    out.say(f"○ {name}", style="base")
    out.say(words.roles(said))
    out.say(f"Teach it to reply: {again(f'finetune {name}', folder)}")
