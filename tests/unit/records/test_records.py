"""The values everything else speaks in: order of turns, choices, checks, seeds, errors."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.records.check import Check
from amenable.records.conversation import ROLES, Conversation, Role
from amenable.records.errors import ConfigError, NotFoundError
from amenable.records.judgement import Choice, Comparison, Judged
from amenable.records.measurement import Difference, Row
from amenable.records.sample import ModelRef, Sample, SamplingSettings, StopReason
from amenable.records.seeds import seed_for

L, R = Judged("L", has_end=True), Judged("R", has_end=False)
HELLO = Conversation.of(("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "V"))


def test_a_conversation_comes_back_from_json_as_it_was():
    assert Conversation.from_json(HELLO.to_json()) == HELLO


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ([], "nobody says anything"),
        (["system"], "nobody says anything"),
        (["assistant"], "turn 1 is by assistant, but user speaks next"),
        (["user", "user"], "turn 2 is by user, but assistant speaks next"),
        (["system", "user", "user"], "turn 3 is by user"),
        (["user", "system"], "turn 2 is by system"),
        (["system", "system"], "turn 2 is by system"),
        (["user", "tool"], "turn 2 has the role 'tool'"),
        (["user", None], "turn 2 has the role None"),
    ],
)
def test_turns_out_of_order_are_named(roles: list[Any], said: str):
    with pytest.raises(ValueError, match=said):
        Conversation.from_json([{"role": role, "content": "x"} for role in roles])


@pytest.mark.parametrize("content", [None, 3, ["x"], {"text": "x"}])
def test_a_turn_without_text_is_named(content: object):
    with pytest.raises(ValueError, match="turn 1 has no text"):
        Conversation.from_json([{"role": "user", "content": content}])


roles = st.lists(st.sampled_from(ROLES), max_size=6)


@settings(deadline=None)  # machines are shared
@given(roles=roles)
def test_a_conversation_is_in_order_exactly_when_its_turns_alternate(roles: list[Role]):
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    alternates = bool(spoken) and all(
        role == ("user", "assistant")[at % 2] for at, role in enumerate(spoken)
    )
    turns: list[tuple[Role, str]] = [(role, "x") for role in roles]
    conversation = Conversation.of(*turns)
    assert (conversation.problem() is None) is alternates


def test_parts_of_a_conversation():
    assert HELLO.system == "S"
    assert HELLO.without_system().system is None
    assert HELLO.last_user_text() == "V"
    assert HELLO.with_reply("B").split_reply() == (HELLO, "B")
    with pytest.raises(ValueError, match="not the assistant's"):
        HELLO.split_reply()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("left", (L, R)), ("right", (R, L)), ("tie", None), ("both_bad", None)],
)
def test_only_a_side_is_a_preference(choice: Choice, expected: tuple[Judged, Judged] | None):
    comparison = Comparison(
        prompt=HELLO,
        left=L,
        right=R,
        choice=choice,
        person="Ada",
        is_simulated=False,
        seconds_spent=1.0,
    )
    assert comparison.preference() == expected


@pytest.mark.parametrize("value", [3, True, "word", ("a", "b"), ()])
def test_a_check_comes_back_from_json_as_it_was(value: Any):
    check = Check("kind", value)
    assert Check.from_json(check.to_json()) == check


@pytest.mark.parametrize(
    "data", [{}, {"kind": "a"}, {"kind": 1, "value": 1}, {"kind": "a", "value": [1]}]
)
def test_what_is_no_check_is_refused(data: dict[str, object]):
    with pytest.raises(ValueError, match="'kind' and 'value'"):
        Check.from_json(data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"top_k": -1},
    ],
)
def test_settings_that_nothing_can_be_drawn_with_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SamplingSettings(**wrong)


@pytest.mark.parametrize(
    ("reason", "ends"), [("stop", True), ("length", False), ("cancelled", False)]
)
def test_a_reply_ends_by_itself_or_does_not(reason: StopReason, ends: bool):
    sample = Sample(
        prompt=HELLO,
        reply="x",
        model=ModelRef("m", "0" * 64),
        settings=SamplingSettings(),
        seed=0,
        stop_reason=reason,
        num_tokens=1,
    )
    assert sample.ends_by_itself is ends


@pytest.mark.parametrize(
    ("low", "high", "p", "chance"),
    [(0.1, 0.3, 0.01, False), (-0.1, 0.3, 0.01, True), (0.1, 0.3, 0.05, True), (0, 0.3, 0, True)],
)
def test_a_difference_that_could_be_chance(low: float, high: float, p: float, chance: bool):
    found = Difference(model="b", against="a", value=0.2, low=low, high=high, p=p)
    assert found.could_be_chance is chance


def test_a_row_finds_its_differences():
    one = Difference(model="b", against="a", value=0.2, low=0.1, high=0.3, p=0.01)
    row = Row(aspect="x", metric="y", unit="share", n=3, values={}, differences=(one,))
    assert row.difference("b", "a") is one
    assert row.difference("a", "b") is None


names = st.lists(st.one_of(st.text(max_size=5), st.integers()), max_size=3)


@settings(deadline=None)  # machines are shared
@given(seed=st.integers(), one=names, other=names)
def test_seeds_follow_names_alone(seed: int, one: list[str | int], other: list[str | int]):
    assert 0 <= seed_for(seed, *one) < 2**32
    assert (seed_for(seed, *one) == seed_for(seed, *other)) is (one == other)


def test_errors_say_what_would_be_right():
    assert str(ConfigError("beta", -1, must="be above 0")) == "beta is -1, but must be above 0."
    assert str(NotFoundError("model", "x", known=["b", "a"])) == (
        "There is no model 'x'. There are: a, b."
    )
    assert str(NotFoundError("model", "x")) == "There is no model 'x'."
