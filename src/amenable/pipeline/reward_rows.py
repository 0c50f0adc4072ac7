"""Judgements as trees: the replies to a prompt, with every order of them that people gave."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from amenable.chat.encode import TokenRow
from amenable.chat.trees import TokenTree
from amenable.pipeline.config import LEAST_COMPARISONS
from amenable.pipeline.judged_rows import ReplyRows
from amenable.records.conversation import Conversation
from amenable.records.errors import DataError
from amenable.records.judgement import Choice, Comparison, Judged
from amenable.records.seeds import seed_for
from amenable.training import reward
from amenable.training.reward import Order, orders_of_ranking

NUM_SEEDS = 2**32
RANKS: dict[Choice, tuple[int, int]] = {"left": (1, 2), "right": (2, 1), "tie": (1, 1)}
"""Of the reply on the left and on the right. Rank 0 is a mended one's; both bad is no order."""


class Chosen(NamedTuple):
    """A choice between two replies that were shown, by their places in a tree."""

    chosen: int
    rejected: int


class JudgedPrompt(NamedTuple):
    """What is learned of a prompt, and the choices by which that is measured."""

    prompt: Conversation
    judged: reward.Judged
    choices: tuple[Chosen, ...]

    @property
    def tree(self) -> TokenTree:
        return self.judged.tree


class JudgedPrompts(NamedTuple):
    trees: list[JudgedPrompt]
    num_used: int
    """Comparisons that order two replies, ties included."""
    num_both_bad: int
    """Comparisons that order none."""
    num_left_out: int
    """Comparisons whose replies do not differ within the tokens that there is room for."""
    num_cut: int = 0
    """Replies that lost their end."""


@dataclass
class _Growing:
    """A tree to which replies come, each once."""

    rows: list[TokenRow] = field(default_factory=list[TokenRow])
    orders: list[Order] = field(default_factory=list[Order])
    choices: list[Chosen] = field(default_factory=list[Chosen])

    def has_room(self, rows: Sequence[TokenRow], num_tokens: int) -> bool:
        new = [row for row in rows if row not in self.rows]
        return not self.rows or TokenTree.of(*self.rows, *new).num_tokens <= num_tokens

    def take(self, rows: Sequence[TokenRow], orders: Sequence[Order], choice: Choice) -> None:
        self.rows += [row for at, row in enumerate(rows) if row not in [*self.rows, *rows[:at]]]
        places = [self.rows.index(row) for row in rows]
        self.orders += [
            each._replace(better=places[each.better], worse=places[each.worse]) for each in orders
        ]
        left, right, *_ = places
        if left != right and choice in ("left", "right"):
            self.choices.append(Chosen(left, right) if choice == "left" else Chosen(right, left))

    def whole(self, prompt: Conversation) -> JudgedPrompt:
        judged = reward.Judged.of(self.rows, self.orders)
        return JudgedPrompt(prompt, judged, tuple(self.choices))


def judged_prompts(
    made: ReplyRows, comparisons: Sequence[Comparison], tokens_per_tree: int
) -> JudgedPrompts:
    """One tree a prompt, or several where its replies are more than memory has room for at once."""
    trees: dict[Conversation, list[_Growing]] = {}
    num_used = num_both_bad = num_left_out = 0
    for each in comparisons:
        replies, orders = _weighed(each)
        rows = [made.row(each.prompt, reply) for reply in replies]
        told_apart = [
            order for order in orders if rows[order.better].tokens != rows[order.worse].tokens
        ]
        if not orders:
            num_both_bad += 1
        elif not told_apart or not all(any(row.is_target) for row in rows):
            num_left_out += 1
        else:
            growing = trees.setdefault(each.prompt, [_Growing()])
            if not growing[-1].has_room(rows, tokens_per_tree):
                growing.append(_Growing())
            growing[-1].take(rows, told_apart, each.choice)
            num_used += 1
    whole = [tree.whole(prompt) for prompt, growing in trees.items() for tree in growing]
    return JudgedPrompts(whole, num_used, num_both_bad, num_left_out, made.num_cut)


def _weighed(comparison: Comparison) -> tuple[list[Judged], tuple[Order, ...]]:
    """With how much the judgement counts, and by how much the chosen reply is better."""
    replies, orders = _ruling(comparison)
    return replies, tuple(
        each._replace(
            weight=each.weight * comparison.weight,
            margin=0.0 if each.is_tie else comparison.margin,
        )
        for each in orders
    )


def _ruling(comparison: Comparison) -> tuple[list[Judged], tuple[Order, ...]]:
    """The replies, left and right first, and their orders, which together count as one."""
    shown = [comparison.left, comparison.right]
    ranks = RANKS.get(comparison.choice)
    if not comparison.mended:
        return shown, orders_of_ranking(ranks) if ranks else ()
    mended = [*shown, Judged(comparison.mended, has_end=True)]
    if ranks:
        return mended, orders_of_ranking([*ranks, 0])
    return mended, (Order(2, 0, weight=0.5), Order(2, 1, weight=0.5))


class Split(NamedTuple):
    learned: list[JudgedPrompt]
    held_out: list[JudgedPrompt]


def split(found: JudgedPrompts, share: float, seed: int) -> Split:
    """Held out are whole prompts; refused is what is too little to learn or to measure."""
    if found.num_used < LEAST_COMPARISONS:
        raise DataError(
            f"A reward model takes {LEAST_COMPARISONS} comparisons that order two replies; there "
            f"are {found.num_used}, which is {LEAST_COMPARISONS - found.num_used} too few. Judge "
            "more pairs, or name an imported data set of them: amenable reward MODEL --data NAME"
        )
    sides = Split([], [])
    for tree in found.trees:
        sides[is_held_out(tree.prompt, share, seed)].append(tree)
    for side, doing in zip(sides, ("learn from", "measure on"), strict=True):
        if not any(tree.choices for tree in side):
            raise DataError(
                f"No choice between two replies is left to {doing}: there are choices on "
                f"{len({tree.prompt for tree in found.trees if tree.choices})} prompts, of which "
                f"{share:.0%} are held out. Judge pairs of other prompts too."
            )
    return sides


def is_held_out(prompt: Conversation, share: float, seed: int) -> bool:
    """By what is said first: conversations that begin alike would tell of each other.

    >>> hi, again = (Conversation.of(("user", text)) for text in ("Hi there", "hi  THERE"))
    >>> is_held_out(hi, 0.5, seed=1) == is_held_out(again, 0.5, seed=1)
    True
    """
    first = prompt.without_system().messages[0].text
    return seed_for(seed, "held out", " ".join(first.casefold().split())) < share * NUM_SEEDS
