"""How commands speak: the words and two colours of the pages, plain text where no terminal is."""

import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from amenable.records.errors import AmenableError

if TYPE_CHECKING:
    from rich.console import Console

# Between the light and the dark tones of the pages, since a terminal does not tell its ground.
STYLES = {
    "base": "#c98a1b",
    "instruct": "#1a9a93",
    "people": "#8a6fd0",
    "wrong": "#d9433a",
    "quiet": "dim",
}
MARKS = {"base": "○", "policy": "●", "instruct": "◆", "reward": "◇"}
PLAIN_WIDTH = 160


class UsageError(AmenableError):
    """Words that the command line does not understand."""


class Out:
    """Says things to a person: on stdout, or on stderr where stdout is for JSON."""

    def __init__(self, *, is_json: bool = False) -> None:
        self.is_json = is_json

    @cached_property
    def console(self) -> "Console":
        from rich.console import Console
        from rich.theme import Theme

        console = Console(stderr=self.is_json, highlight=False, theme=Theme(STYLES))
        if not console.is_terminal:
            console.width = PLAIN_WIDTH  # nobody looks at a margin there, and programs cut lines
        return console

    def say(self, text: str = "", *, style: str = "", end: str = "\n") -> None:
        """One line or more, as they are: nothing in them is markup."""
        self.console.print(safe(text), style=style or None, markup=False, soft_wrap=True, end=end)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns without lines; those whose head begins with a space hold numbers."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="quiet")
        for head in heads:
            table.add_column(head.strip(), justify="right" if head.startswith(" ") else "left")
        for row in rows:
            table.add_row(*(Text(safe(cell)) for cell in row))
        self.console.print(table)


def safe(text: str) -> str:
    """Text of models and files may hold codes that move the cursor or worse; they are left out.

    >>> safe("a\\x1b[2Jb\\tc")
    'a[2Jb\\tc'
    """
    return "".join(each for each in text if each in "\n\t" or unicodedata.category(each) != "Cc")
