"""Wins by a rule and by people."""

from dataclasses import dataclass

import pytest

from amenable.evaluation.model_spec import ModelSpec
from amenable.evaluation.win_rate import BlindChoice, people_row, rule_points, rule_row
from amenable.records.check import Check
from amenable.records.conversation import Conversation
from amenable.records.sample import ModelRef, Sample, SamplingSettings, StopReason
from amenable.reports.words import finding


@dataclass(frozen=True)
class Asked:
    key: str
    family: str
    conversation: Conversation
    checks: tuple[Check, ...] = ()


PROMPT = Asked("p1", "plan", Conversation.of(("user", "Hi")), (Check("max_words", 2),))
OTHER = Asked("p2", "plan", Conversation.of(("user", "Ho")), (Check("max_words", 2),))
SPECS = [
    ModelSpec(name="base", kind="base", form="plain"),
    ModelSpec(name="v1", kind="policy", form="gemma", parent="base"),
]


def said(reply: str, stop_reason: StopReason = "stop") -> Sample:
    return Sample(
        prompt=PROMPT.conversation,
        reply=reply,
        model=ModelRef("m", "0" * 64),
        settings=SamplingSettings(),
        seed=0,
        stop_reason=stop_reason,
        num_tokens=1,
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "points"),
    [
        (said("Two words", "length"), said("Now three words"), 1),  # checks come first
        (said("Two words"), said("Two others", "length"), 1),  # then a clean ending
        (said("a b c d e f"), said("go on go on go on go on go on"), 1),  # then less repetition
        (said("Two words"), said("Two others"), 0.5),
        (said(""), said("Too many words", "length"), 0.5),  # an empty reply has not ended
    ],
)
def test_the_rule_and_its_mirror(ours: Sample, theirs: Sample, points: float):
    assert rule_points(PROMPT, ours, theirs) == points
    assert rule_points(PROMPT, theirs, ours) == 1 - points


def test_the_base_stands_at_one_half_and_the_judge_is_named():
    replies = {
        "base": {"p1": said("one two three"), "p2": said("one two three")},
        "v1": {"p1": said("two words"), "p2": said("one two three")},
    }

    row = rule_row([PROMPT, OTHER], replies, SPECS, seed=1)

    assert row is not None
    assert (row.values["base"].value, row.values["base"].low, row.values["base"].high) == (
        0.5,
        0.5,
        0.5,
    )
    assert row.values["v1"].value == 0.75  # a win and a tie
    assert "by a rule, not by people" in row.note


REPLIES = {
    "v1": {"p1": said("two words"), "p2": said("one two three")},
    "base": {"p1": said("one two three"), "p2": said("one two three")},
    "guest": {"p1": said("two words"), "p2": said("two words")},
}


def test_wins_are_counted_against_the_base_wherever_it_stands():
    row = rule_row([PROMPT, OTHER], REPLIES, SPECS[::-1], seed=1)
    assert row is not None
    assert {name: each.value for name, each in row.values.items()} == {"v1": 0.75, "base": 0.5}
    assert row.title == "Preferred to the base"


def test_without_a_base_the_row_says_whom_it_counts_against():
    guest = ModelSpec(name="guest", kind="instruct", form="")
    row = rule_row([PROMPT, OTHER], REPLIES, [SPECS[1], guest], seed=1)
    assert row is not None
    # One tie, one win over the three words of the first model.
    assert {name: each.value for name, each in row.values.items()} == {"v1": 0.5, "guest": 0.75}
    assert row.title == "Preferred to v1"
    assert "that of v1, the first model here" in row.about
    assert "base" not in row.about


def choice(key: str, preferred: str | None, *, is_simulated: bool = False) -> BlindChoice:
    return BlindChoice(key=key, models=("v2", "v1"), preferred=preferred, is_simulated=is_simulated)


def test_people_choose_between_versions():
    choices = [choice("a", "v2"), choice("b", "v2"), choice("c", None), choice("d", "v1")]

    row = people_row(choices, "v1", "v2")

    assert row is not None
    assert (row.n, row.values["v2"].value, row.values["v1"].value) == (4, 0.625, 0.375)
    (difference,) = row.differences
    assert difference.value == pytest.approx(0.625 - 0.375)
    # The gap is as wide as both shares together: one falls where the other rises.
    v1, v2 = row.values["v1"], row.values["v2"]
    assert (difference.low, difference.high) == pytest.approx((v2.low - v1.high, v2.high - v1.low))
    assert "4 choices of people" in row.note
    said = finding(row, difference)
    assert "v2 62 %, v1 38 % (+25 points" in said


def test_simulated_people_are_named_and_other_models_pairs_left_out():
    other = BlindChoice(key="z", models=("v1", "v9"), preferred="v1", is_simulated=False)
    choices = [choice("a", "v2", is_simulated=True), choice("b", "v1"), other]

    row = people_row(choices, "v1", "v2")

    assert row is not None
    assert "2 choices of simulated people" in row.note


def test_two_choices_on_one_prompt_count_as_one_prompt():
    choices = [choice("a", "v2"), choice("a", "v1"), choice("b", "v2")]

    row = people_row(choices, "v1", "v2")

    assert row is not None
    assert (row.n, row.values["v2"].value) == (2, 0.75)


def test_three_wins_of_three_are_no_proof():
    row = people_row([choice(key, "v2") for key in "abc"], "v1", "v2")

    assert row is not None
    (difference,) = row.differences
    assert difference.p == pytest.approx(0.25)  # by hand: 2 / 2^3
    assert difference.could_be_chance
    assert difference.low < 0 < difference.high


def test_too_few_choices_make_no_row():
    assert people_row([choice("a", "v2")], "v1", "v2") is None
