"""What a run learns from judgements, people's own and imported: the same in every attempt of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from amenable.datasets.examples import (
    PreferenceExample,
    RankingExample,
    RatedExample,
    example_from_json,
)
from amenable.feedback import export
from amenable.pipeline.history import NEWEST_VOTE
from amenable.pipeline.sources import asks_any, check_holds, sealed_prompts
from amenable.records.conversation import Conversation
from amenable.records.judgement import Choice, Comparison, Judged, Rating
from amenable.records.run import counted
from amenable.store import library
from amenable.store.artifacts import write_whole

JUDGEMENTS = "judgements.json"
"""In the run's folder: what it learns from, and by what names that is known for good."""
JUDGED_SETS = "judged_sets"
"""In a model's `info`: imported data sets that it learned from, by their sha256."""


JudgedExample = PreferenceExample | RankingExample | RatedExample


class Said(NamedTuple):
    """What a file says of two replies."""

    left: str
    right: str
    choice: Choice
    weight: float
    margin: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which judgements a run asks for."""

    sets: tuple[str, ...]
    """Names of imported data sets."""
    model_sha256: str | None = None
    """Of people's own, only those on replies of this model; None: of any."""
    takes_ratings: bool = False
    """Whether a reply that was judged by itself teaches anything."""

    @property
    def types(self) -> tuple[str, ...]:
        return ("preference", "rated" if self.takes_ratings else "ranking")


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenSet:
    """Rows of an imported data set, which never changes."""

    name: str
    sha256: str
    places: tuple[int, ...]
    """Of the rows, among those that are not sealed."""
    num_equal: int
    """Rows left out because both replies are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """People judge on, take back, and turn thumbs round: that is for the next run."""

    judgements: tuple[int, ...]
    thumbs: Mapping[int, bool]
    """By the sample's id."""
    sets: tuple[TakenSet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
    """Sealed prompts are left out."""

    pairs: Sequence[Comparison]
    imported: Sequence[Comparison]
    ratings: Sequence[Rating]
    taken: Taken

    @property
    def comparisons(self) -> list[Comparison]:
        return [*self.pairs, *self.imported]

    @property
    def is_simulated(self) -> bool:
        return any(each.is_simulated for each in (*self.pairs, *self.ratings))

    @property
    def sets(self) -> dict[str, str]:
        return {each.name: each.sha256 for each in self.taken.sets}

    def counts(self) -> dict[str, str]:
        """For the run's record; what there is none of is left out, but for people's votes."""
        return {
            "judged": str(len(self.pairs)),
            NEWEST_VOTE: str(max(self.taken.judgements, default=0)),
            "comparisons": str(sum(each.teaches for each in self.pairs)),
            **counted(
                thumbs=len(self.taken.thumbs),
                imported=sum(len(each.places) for each in self.taken.sets),
                equal=sum(each.num_equal for each in self.taken.sets),
            ),
        }

    def keep(self, folder: Path) -> None:
        write_whole(folder / JUDGEMENTS, _JUDGEMENTS.dump_json(self))


_JUDGEMENTS = TypeAdapter(Judgements)
_KEPT = TypeAdapter[Judgements | Taken](Judgements | Taken)


def judgements(session: Session, folder: Path, wanted: Wanted) -> Judgements:
    """What an earlier attempt of this run began with, else what there is now."""
    path = folder / JUDGEMENTS
    if not path.is_file():
        return _read(session, _take(session, wanted))
    kept = _KEPT.validate_json(path.read_bytes())
    # Runs of before kept the names alone, which mean something in their own workspace only.
    return _read(session, kept) if isinstance(kept, Taken) else kept


def data_sets(inputs: Mapping[str, str]) -> tuple[str, ...]:
    """The imported data sets that a run's inputs name, by commas; each counts once.

    >>> data_sets({"model": "m", "data": "ours,theirs,ours"})
    ('ours', 'theirs')
    """
    return tuple(dict.fromkeys(name for name in inputs.get("data", "").split(",") if name))


def _take(session: Session, wanted: Wanted) -> Taken:
    sealed = sealed_prompts(session)
    pairs = export.comparisons(session, "improve", model_sha256=wanted.model_sha256)
    thumbs = (
        export.thumbs(session, model_sha256=wanted.model_sha256) if wanted.takes_ratings else []
    )
    return Taken(
        judgements=tuple(each.judgement_id for each in pairs if not asks_any(each.prompt, sealed)),
        thumbs={
            each.sample_id: each.is_good for each in thumbs if not asks_any(each.prompt, sealed)
        },
        sets=tuple(_take_set(session, name, wanted.types, sealed) for name in wanted.sets),
    )


def _take_set(
    session: Session, name: str, types: Sequence[str], sealed: frozenset[Conversation]
) -> TakenSet:
    check_holds(session, name, *types)
    places: list[int] = []
    num_equal = 0
    for place, example in enumerate(_rows(session, name)):
        if asks_any(example.prompt, sealed):
            continue
        if isinstance(example, PreferenceExample) and example.chosen == example.rejected:
            num_equal += 1
        else:
            places.append(place)
    sha256 = library.dataset(session, name).sha256
    return TakenSet(name=name, sha256=sha256, places=tuple(places), num_equal=num_equal)


def _read(session: Session, taken: Taken) -> Judgements:
    thumbs = export.thumbs(session, sample_ids=list(taken.thumbs))
    imported: list[Comparison] = []
    ratings: list[Rating] = [replace(each, is_good=taken.thumbs[each.sample_id]) for each in thumbs]
    for each in taken.sets:
        rows = _rows(session, each.name)
        for row in (rows[place] for place in each.places):
            if isinstance(row, RatedExample):
                ratings.append(_rating(row))
            else:
                imported += _comparisons(row, each.name)
    return Judgements(
        pairs=export.comparisons(session, "improve", judgement_ids=taken.judgements),
        imported=imported,
        ratings=ratings,
        taken=taken,
    )


def _rows(session: Session, name: str) -> list[JudgedExample]:
    examples = [example_from_json(body) for body in library.examples(session, name)]
    return [each for each in examples if isinstance(each, JudgedExample)]


def _comparisons(row: PreferenceExample | RankingExample, name: str) -> list[Comparison]:
    """The better reply stands left; a file says neither who chose nor how long it took.

    A ranking is each pair of its replies, which together count as much as one.
    """
    if isinstance(row, PreferenceExample):
        said = Said(row.chosen, row.rejected, "left", row.weight, row.margin)
        return [_comparison(row.prompt, said, name)]
    ranked = sorted(zip(row.ranks, row.replies, strict=True), key=lambda each: each[0])
    pairs = list(combinations(ranked, 2))
    share = row.weight / len(pairs)
    return [
        _comparison(row.prompt, Said(better, worse, "tie" if a == b else "left", share), name)
        for (a, better), (b, worse) in pairs
    ]


def _comparison(prompt: Conversation, said: Said, name: str) -> Comparison:
    return Comparison(
        prompt=prompt,
        left=Judged(said.left, has_end=True),
        right=Judged(said.right, has_end=True),
        choice=said.choice,
        person=name,
        is_simulated=False,
        seconds_spent=0.0,
        margin=said.margin,
        weight=said.weight,
    )


def _rating(row: RatedExample) -> Rating:
    reply = Judged(row.reply, has_end=True)
    return Rating(prompt=row.prompt, reply=reply, is_good=row.is_good)
