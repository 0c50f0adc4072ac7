"""Options that several commands share, each with its one sentence."""

from pathlib import Path
from typing import Annotated

import tyro

DEFAULT_WORKSPACE = Path("amenable-workspace")

WorkspaceFolder = Annotated[
    Path,
    tyro.conf.arg(
        metavar="FOLDER", help="The folder that holds models, data, runs and judgements."
    ),
]
JsonFlag = Annotated[
    tyro.conf.FlagCreatePairsOff[bool],
    tyro.conf.arg(help="End with one JSON object on stdout; everything else goes to stderr."),
]
Flag = tyro.conf.FlagCreatePairsOff[bool]
NoDefault = tyro.conf.arg(help_behavior_hint="")
"""For what may be left out: "(default: None)" tells nobody anything."""
SEED = 7


def again(command: str, workspace: Path) -> str:
    """A command to type, with the workspace if it is not the usual one.

    >>> again("runs list", Path("amenable-workspace")), again("start", Path("/data/ours"))
    ('amenable runs list', 'amenable start --workspace /data/ours')
    """
    if workspace.absolute() == DEFAULT_WORKSPACE.absolute():
        return f"amenable {command}"
    return f"amenable {command} --workspace {workspace}"
