"""Rankings: several replies to one prompt and the rank of each."""

from amenable.datasets.examples import RankingExample
from amenable.datasets.fields import Fields, checked_text, describe
from amenable.datasets.readers.prompts import explicit_prompt
from amenable.datasets.strict import RowError

MOST_REPLIES = 32
"""Each is compared with each: 496 comparisons a prompt."""


def read_ranking(row: Fields) -> RankingExample:
    """`replies` and `ranks`: 1 is the best, and replies of one rank are equally good."""
    replies = row.items("replies", "a list of texts")
    ranks = row.items("ranks", "a list of whole numbers, one a reply")
    if not 2 <= len(replies) <= MOST_REPLIES:
        raise RowError("replies", f"has {len(replies)} texts, expected 2 to {MOST_REPLIES}")
    if len(ranks) != len(replies):
        raise RowError("ranks", f"has {len(ranks)} numbers for {len(replies)} replies")
    texts = tuple(_reply(each, at) for at, each in enumerate(replies, 1))
    if len(set(texts)) < len(texts):
        raise RowError("replies", "has the same text twice, which cannot be ranked")
    return RankingExample(
        prompt=explicit_prompt(row),
        replies=texts,
        ranks=tuple(_rank(each, at) for at, each in enumerate(ranks, 1)),
        weight=row.number("weight", usual=1.0, least=0.01, most=100.0),
    )


def _reply(value: object, at: int) -> str:
    if not isinstance(value, str):
        raise RowError("replies", f"reply {at} is {describe(value)}, expected text")
    return checked_text("replies", value, f"reply {at}")


def _rank(value: object, at: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_REPLIES:
        raise RowError(
            "ranks", f"rank {at} is {value!r}, expected a whole number up to {MOST_REPLIES}"
        )
    return value
