"""Scripted judges of differing reliability: for tests, demos and for trying the loop alone."""

import random
import re
from collections import Counter
from dataclasses import dataclass

from amenable.records.errors import NotFoundError
from amenable.records.judgement import Choice
from amenable.records.sample import StopReason
from amenable.records.seeds import seed_for

WORD = re.compile(r"\w+")
REPEATED_WORDS = 3
NOTABLE_REPETITION = 0.1
"""Less of a difference in repetition is not seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenReply:
    """A reply as a judge weighs it; whoever calls has held it against the prompt's checks."""

    text: str
    checks_met: int
    stop_reason: StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Follows the preference in `reliability` of the pairs and guesses in the others."""

    name: str
    reliability: float
    left_habit: float = 0.0
    """How often the left side is taken without looking."""
    seconds: float = 8.0
    """A typical time for one pair."""


JUDGES: dict[str, Judge] = {
    judge.name: judge
    for judge in (
        Judge(name="simulated-careful", reliability=0.98, seconds=14.0),
        Judge(name="simulated-steady", reliability=0.92, seconds=9.0),
        Judge(name="simulated-hasty", reliability=0.75, seconds=2.5),
        Judge(name="simulated-left", reliability=0.92, left_habit=0.35, seconds=6.0),
        Judge(name="simulated-random", reliability=0.0, seconds=1.5),
    )
}
GUESSES: tuple[Choice, ...] = ("left", "right", "tie")


def judge_named(name: str) -> Judge:
    if name not in JUDGES:
        raise NotFoundError("simulated judge", name, known=JUDGES)
    return JUDGES[name]


def preference(left: SeenReply, right: SeenReply) -> Choice:
    """Who meets more checks; then who ends by itself; then who repeats itself less; else a tie.

    >>> short = SeenReply(text="Yes.", checks_met=1, stop_reason="stop")
    >>> preference(short, SeenReply(text="Yes " * 50, checks_met=1, stop_reason="length"))
    'left'
    """
    if left.checks_met != right.checks_met:
        return "left" if left.checks_met > right.checks_met else "right"
    left_ends, right_ends = left.stop_reason == "stop", right.stop_reason == "stop"
    if left_ends != right_ends:
        return "left" if left_ends else "right"
    more_on_the_left = repetition(left.text) - repetition(right.text)
    if abs(more_on_the_left) < NOTABLE_REPETITION:
        return "tie"
    return "right" if more_on_the_left > 0 else "left"


def repetition(text: str) -> float:
    """The share of three-word runs that were said before.

    >>> repetition("one two three four"), repetition("go on and go on and go on and")
    (0.0, 0.5714285714285714)
    """
    words = [word.casefold() for word in WORD.findall(text)]
    runs = Counter(
        tuple(words[start : start + REPEATED_WORDS])
        for start in range(len(words) - REPEATED_WORDS + 1)
    )
    return 1 - len(runs) / runs.total() if runs else 0.0


def judge(who: Judge, left: SeenReply, right: SeenReply, *, key: str, seed: int) -> Choice:
    """This judge's choice; `key` names the pair, so that no order of work changes it."""
    draw = random.Random(seed_for(seed, "simulated", who.name, key))  # noqa: S311 - no secret
    if draw.random() < who.left_habit:
        return "left"
    if draw.random() < who.reliability:
        return preference(left, right)
    return draw.choice(GUESSES)


def seconds_for(who: Judge, *, key: str, seed: int) -> float:
    """How long this judge takes, between half and twice the typical time."""
    draw = random.Random(seed_for(seed, "seconds", who.name, key))  # noqa: S311 - no secret
    return round(who.seconds * 2 ** draw.uniform(-1, 1), 1)
