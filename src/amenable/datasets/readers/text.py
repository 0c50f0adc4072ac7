"""Plain text, one piece a row."""

from amenable.datasets.examples import TextExample
from amenable.datasets.fields import Fields


def read_text(row: Fields) -> TextExample:
    return TextExample(text=row.text("text"))
