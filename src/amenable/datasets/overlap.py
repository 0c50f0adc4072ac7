"""Words that two sets of texts share, and texts that are the same: what keeps an exam honest."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

WORD = re.compile(r"\w+")
Texts = Mapping[str, Iterable[str]]
"""Key of a row to its texts; words are not joined over the border of two texts."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Consecutive words that stand in a row of either set."""

    left: str
    right: str
    words: tuple[str, ...]


def ngrams(text: str, size: int = 8) -> set[tuple[str, ...]]:
    """All runs of so many words, without case and punctuation.

    >>> sorted(ngrams("By the sea, by the sea.", 3))
    [('by', 'the', 'sea'), ('sea', 'by', 'the'), ('the', 'sea', 'by')]
    """
    return set(_runs(text, size))


def shared_ngrams(left: Texts, right: Texts, size: int = 8) -> list[Overlap]:
    """Every run of `size` words that stands in both sets, with the rows it stands in.

    >>> shared_ngrams({"a": ["One two three."]}, {"b": ["one TWO three four"]}, size=3)
    [Overlap(left='a', right='b', words=('one', 'two', 'three'))]
    """
    places = _places(left, size)
    return [
        Overlap(key, other, run)
        for run, others in _places(right, size).items()
        for other in others
        for key in places.get(run, ())
    ]


def repeated_ngrams(texts: Texts, size: int = 8) -> list[Overlap]:
    """Every run of `size` words that two rows of one set share.

    >>> repeated_ngrams({"a": ["one two"], "b": ["one two"]}, size=2)
    [Overlap(left='a', right='b', words=('one', 'two'))]
    """
    return [
        Overlap(keys[0], other, run)
        for run, keys in _places(texts, size).items()
        for other in keys[1:]
    ]


def duplicates(texts: Texts) -> list[tuple[str, ...]]:
    """Keys of rows that say the same, whatever their case, spacing and punctuation.

    >>> duplicates({"a": ["Hi there!"], "b": ["hi  there"], "c": ["Bye"]})
    [('a', 'b')]
    """
    same: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, parts in texts.items():
        same[tuple(" ".join(WORD.findall(part.casefold())) for part in parts)].append(key)
    return [tuple(keys) for keys in same.values() if len(keys) > 1]


def _places(texts: Texts, size: int) -> dict[tuple[str, ...], list[str]]:
    places: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, parts in texts.items():
        for run in dict.fromkeys(run for part in parts for run in _runs(part, size)):
            places[run].append(key)
    return places


def _runs(text: str, size: int) -> Iterator[tuple[str, ...]]:
    found = WORD.findall(text.casefold())
    return (tuple(found[at : at + size]) for at in range(len(found) - size + 1))
