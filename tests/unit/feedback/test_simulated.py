"""Scripted judges: their preference, their habits, and that no order of work changes them."""

from collections import Counter

import pytest

from amenable.feedback.simulated import (
    JUDGES,
    SeenReply,
    judge,
    judge_named,
    preference,
    repetition,
    seconds_for,
)
from amenable.records.errors import NotFoundError
from amenable.records.sample import StopReason

ROUND = "the sea and the land and the sea and the land and the sea and the land"


def seen(checks_met: int = 1, stop_reason: StopReason = "stop", text: str = "Hello.") -> SeenReply:
    return SeenReply(text=text, checks_met=checks_met, stop_reason=stop_reason)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (seen(checks_met=2, stop_reason="length", text=ROUND), seen(checks_met=1)),
        (seen(stop_reason="stop", text=ROUND), seen(stop_reason="length")),
        (seen(text="Once and no more, I say."), seen(text=ROUND)),
    ],
    ids=["checks come first", "then ending by itself", "then less repetition"],
)
def test_what_is_preferred_does_not_depend_on_the_side(better: SeenReply, worse: SeenReply):
    assert preference(better, worse) == "left"
    assert preference(worse, better) == "right"


def test_equal_replies_tie():
    assert preference(seen(), seen(text="Good day.")) == "tie"


@pytest.mark.parametrize(
    ("text", "expected"),
    # Runs of three words; "a b c a b c" has abc, bca, cab, abc: one of four was said before.
    [("", 0.0), ("two words", 0.0), ("a b c a b c", 0.25), ("x x x x x", 2 / 3)],
)
def test_repetition_is_worked_by_hand(text: str, expected: float):
    assert repetition(text) == pytest.approx(expected)


def choices(name: str, left: SeenReply, right: SeenReply, count: int = 2000) -> Counter[str]:
    who = judge_named(name)
    return Counter(judge(who, left, right, key=str(number), seed=1) for number in range(count))


def share_right(name: str) -> float:
    """How often this judge finds the better reply, which stands on either side in turn."""
    better, worse = seen(checks_met=2), seen(checks_met=1)
    found = choices(name, better, worse)["left"] + choices(name, worse, better)["right"]
    return found / 4000


def test_there_are_judges_of_differing_reliability():
    shares = {name: share_right(name) for name in JUDGES}

    assert len(JUDGES) >= 5
    # A guess hits one of three, so reliability r finds r + (1 - r) / 3; within 3 standard errors.
    assert shares["simulated-careful"] == pytest.approx(0.987, abs=0.01)
    assert shares["simulated-steady"] == pytest.approx(0.947, abs=0.012)
    assert shares["simulated-hasty"] == pytest.approx(0.833, abs=0.02)
    assert shares["simulated-random"] == pytest.approx(1 / 3, abs=0.025)


def test_one_judge_leans_to_the_left():
    tied = (seen(), seen())

    # Left out of habit in 0.35, and by a guess in (1 - 0.35) * 0.08 / 3.
    assert choices("simulated-left", *tied)["left"] / 2000 == pytest.approx(0.367, abs=0.035)
    assert choices("simulated-steady", *tied)["left"] / 2000 == pytest.approx(0.027, abs=0.012)


def test_a_choice_follows_the_name_of_the_pair_and_nothing_else():
    who = judge_named("simulated-hasty")
    keys = [str(number) for number in range(50)]
    forth = {key: judge(who, seen(2), seen(1), key=key, seed=3) for key in keys}
    back = {key: judge(who, seen(2), seen(1), key=key, seed=3) for key in reversed(keys)}

    assert forth == back
    assert forth != {key: judge(who, seen(2), seen(1), key=key, seed=4) for key in keys}


def test_a_judge_takes_about_their_time():
    who = judge_named("simulated-careful")
    times = [seconds_for(who, key=str(number), seed=1) for number in range(200)]

    assert 7.0 <= min(times) < max(times) <= 28.0


def test_an_unknown_judge_is_named_with_those_there_are():
    with pytest.raises(NotFoundError, match="simulated-careful"):
        judge_named("simulated-nobody")
