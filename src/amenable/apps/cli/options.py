"""Options that several commands share, each with its one sentence."""

from pathlib import Path
from typing import Annotated

import tyro

from amenable.apps.web import words

DEFAULT_WORKSPACE = words.DEFAULT_WORKSPACE

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
again = words.again
"""Kept where pages find it too: they show commands, and may not import from here."""
