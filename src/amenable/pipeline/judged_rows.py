"""Judgements as token rows: what a preference method is fed."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from amenable.chat.encode import Encoder, TokenRow
from amenable.chat.packing import Limit
from amenable.pipeline.config import AlignConfig, RewardConfig
from amenable.records.conversation import Conversation
from amenable.records.errors import DataError
from amenable.records.judgement import Comparison, Judged, Preference, Rating
from amenable.training.preference import RowPair
from amenable.training.unpaired import JudgedRow

LEAST_PAIRS = 2


class ReplyRows:
    """Replies as token rows of a limited length, and how many were longer."""

    def __init__(self, encoder: Encoder, limit: Limit) -> None:
        self.limit = limit
        self._encoder = encoder
        self._beyond: set[tuple[Conversation, Judged]] = set()

    def row(self, prompt: Conversation, reply: Judged) -> TokenRow:
        whole = self._encoder.reply_row(prompt, reply.text, has_end=reply.has_end)
        if not self.limit.holds(whole):
            self._beyond.add((prompt, reply))
        return self.limit.fit(whole)

    @property
    def num_cut(self) -> int:
        """Replies that lost their end, each counted once; none where they are left out."""
        return 0 if self.limit.leaves_out else len(self._beyond)


def limit_of(config: AlignConfig | RewardConfig, num_positions: int) -> Limit:
    """No more than is asked for, and no more than the model reads at once."""
    return Limit(min(config.max_tokens, num_positions), config.too_long == "leave_out")


class TrainingPairs(NamedTuple):
    pairs: list[RowPair]
    num_left_out: int
    """Comparisons whose replies are too long, or whose prompt leaves no room for one."""


def training_pairs(
    rows: ReplyRows, comparisons: Sequence[Comparison], *, flip_rate: float = 0.0
) -> TrainingPairs:
    """Chosen and rejected rows; a mended reply is chosen over both that were shown."""
    pairs: list[RowPair] = []
    num_left_out = 0
    for each in comparisons:
        orders = [order for order in _orders(each) if order.chosen.text != order.rejected.text]
        found = [
            RowPair(
                chosen=rows.row(each.prompt, order.chosen),
                rejected=rows.row(each.prompt, order.rejected),
                weight=each.weight,
                # Both say how far a judgement can be relied on: one of them, never both.
                flip_rate=flip_rate if each.weight == 1.0 else 0.0,
            )
            for order in orders
        ]
        whole = [pair for pair in found if all(any(row.is_target) for row in pair.rows)]
        pairs += whole
        num_left_out += bool(found) and not whole
    if len(pairs) >= LEAST_PAIRS:
        return TrainingPairs(pairs, num_left_out)
    if num_left_out:
        raise _no_room(num_left_out, rows.limit)
    raise DataError(
        "The judgements so far prefer no reply to another (ties and both bad teach no order). "
        "Judge some more pairs first."
    )


class _Said(NamedTuple):
    """What somebody thinks of one reply."""

    prompt: Conversation
    reply: Judged
    is_good: bool
    weight: float = 1.0


class TrainingReplies(NamedTuple):
    judged: list[JudgedRow]
    num_left_out: int
    """Replies that are too long, or whose prompt leaves no room for them."""


def training_replies(
    rows: ReplyRows,
    comparisons: Sequence[Comparison],
    seed: int,
    *,
    ratings: Sequence[Rating] = (),
) -> TrainingReplies:
    """Every reply by itself: chosen ones good, others bad, and both of a pair that was both bad.

    Good and bad count the same in all, whatever their number and weights (arXiv 2402.01306,
    section 4.2).
    """
    said = [
        _Said(each.prompt, reply, is_good, each.weight)
        for each in comparisons
        for reply, is_good in _marks(each)
    ]
    said += [_Said(each.prompt, each.reply, each.is_good) for each in ratings]
    random.Random(seed).shuffle(said)  # noqa: S311
    own = [rows.row(each.prompt, each.reply) for each in said]
    strangers = [rows.row(prompt, reply) for prompt, reply in _strangers(said)]
    whole = {
        is_good: sum(e.weight for e in said if e.is_good == is_good) for is_good in (True, False)
    }
    judged = [
        JudgedRow(row, stranger, each.is_good, each.weight * len(said) / (2 * whole[each.is_good]))
        for each, row, stranger in zip(said, own, strangers, strict=True)
        if any(row.is_target) and any(stranger.is_target)
    ]
    num_left_out = len(said) - len(judged)
    if {each.is_good for each in judged} == {True, False}:
        return TrainingReplies(judged, num_left_out)
    if num_left_out:
        raise _no_room(num_left_out, rows.limit)
    raise DataError(
        "The judgements so far call no reply good, or none bad. Judge some more pairs first."
    )


def _strangers(said: Sequence[_Said]) -> list[tuple[Conversation, Judged]]:
    """For each prompt the next reply in the row that was given to another prompt."""
    found: list[tuple[Conversation, Judged]] = []
    for at, (prompt, *_) in enumerate(said):
        following = (said[(at + step) % len(said)] for step in range(1, len(said)))
        other = next((each.reply for each in following if each.prompt != prompt), None)
        if other is None:
            raise DataError("All judgements are of one prompt; learning from them takes several.")
        found.append((prompt, other))
    return found


def _marks(comparison: Comparison) -> list[tuple[Judged, bool]]:
    shown = (comparison.left, comparison.right)
    if comparison.mended:
        mended = Judged(comparison.mended, has_end=True)
        return [(mended, True), *((each, False) for each in shown)]
    if comparison.choice == "both_bad":
        return [(each, False) for each in shown]
    preference = comparison.preference()
    return [(preference.chosen, True), (preference.rejected, False)] if preference else []


def _orders(comparison: Comparison) -> list[Preference]:
    if comparison.mended:
        mended = Judged(comparison.mended, has_end=True)
        return [Preference(mended, shown) for shown in (comparison.left, comparison.right)]
    preference = comparison.preference()
    return [preference] if preference else []


def _no_room(num_left_out: int, limit: Limit) -> DataError:
    return DataError(
        f"{num_left_out} of the judged prompts leave no room for a reply within {limit.max_tokens} "
        "tokens, and too few are left. Begin it by hand: amenable align with a larger "
        "--max-tokens."
    )
