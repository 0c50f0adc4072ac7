"""The plain text that pretraining learns from, and what of it is held out to measure on."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from amenable.datasets.examples import TextExample
from amenable.pipeline.config import PretrainConfig
from amenable.pipeline.sources import check_holds
from amenable.records.errors import DataError
from amenable.records.seeds import seed_for
from amenable.store import library
from amenable.store.artifacts import write_whole

LEAST_BYTES = 4096
CORPUS_FILE = "corpus.json"
"""In the folder of a run that was packed: data sets never change, but are not everywhere."""


class Parts(NamedTuple):
    """No text stands in both."""

    learned: list[str]
    held_out: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Texts of the data sets that a run names."""

    learned: Sequence[str]
    held_out: Sequence[str]
    sets: Mapping[str, str]
    """Their sha256, by name."""
    licences: Mapping[str, str]
    num_empty: int
    is_one_text: bool
    """Then it is learned from up to where its end is held out."""

    @classmethod
    def of(
        cls, session: Session, names: Sequence[str], config: PretrainConfig, seed: int
    ) -> "Corpus":
        """All but what is sealed; what has no words is left out and counted."""
        if not names:
            raise DataError("Name at least one data set of plain text.")
        for name in names:
            check_holds(session, name, "text")
        bodies = [body for name in names for body in library.examples(session, name)]
        found = [TextExample.from_json(body).text for body in bodies]
        texts = [text for text in found if text.strip()]
        if config.limit:
            order = sorted(range(len(texts)), key=lambda at: seed_for(seed, "limit", at))
            texts = [texts[at] for at in sorted(order[: config.limit])]
        num_bytes = sum(len(text.encode()) for text in texts)
        if num_bytes < LEAST_BYTES:
            raise DataError(
                f"There are {num_bytes:,} bytes of text, and at least {LEAST_BYTES:,} are needed."
            )
        is_one_text = len({_words(text) for text in texts}) == 1
        rows = [library.dataset(session, name) for name in names]
        parts = (_cut_end if is_one_text else parted)(texts, config.held_out_share)
        return cls(
            learned=parts.learned,
            held_out=parts.held_out,
            sets={row.name: row.sha256 for row in rows},
            licences={row.name: row.licence for row in rows},
            num_empty=len(found) - sum(bool(text.strip()) for text in found),
            is_one_text=is_one_text,
        )

    def keep(self, folder: Path) -> None:
        write_whole(folder / CORPUS_FILE, _CORPUS.dump_json(self))

    @classmethod
    def kept(cls, folder: Path) -> "Corpus | None":
        """What the run was packed with."""
        path = folder / CORPUS_FILE
        return _CORPUS.validate_json(path.read_bytes()) if path.is_file() else None


_CORPUS = TypeAdapter(Corpus)


def place(text: str) -> float:
    """Where in [0, 1) a text's words fall; what lies below the share is held out.

    It is the same in every run, whatever stands beside it: what one base is measured on, a base
    that goes on from it does not learn either.

    >>> place("By the  sea.") == place("By the sea.") != place("By the lake.")
    True
    """
    digest = hashlib.sha256(_words(text).encode()).digest()
    return int.from_bytes(digest[:6]) / 256**6


def _words(text: str) -> str:
    return " ".join(text.split())


def parted(texts: Sequence[str], share: float) -> Parts:
    """At least one text is held out, and at least one is learned from."""
    places = [place(text) for text in texts]
    first, last = min(places), max(places)
    is_held_out = [at == first or at < min(share, last) for at in places]
    marked = list(zip(texts, is_held_out, strict=True))
    return Parts(
        learned=[text for text, is_out in marked if not is_out],
        held_out=[text for text, is_out in marked if is_out],
    )


def _cut_end(texts: Sequence[str], share: float) -> Parts:
    """The end of the only text is held out, from the next space on."""
    text = texts[0].strip()
    at = round(len(text) * (1 - share))
    at = max(at, text.find(" ", at))
    return Parts(learned=[text[:at]], held_out=[text[at:]])
