"""Marks of single samples, worked by hand."""

from dataclasses import dataclass

import pytest

from amenable.evaluation.metrics import (
    METRICS,
    has_list,
    is_refusal,
    repetition,
    score,
    share_of_checks,
)
from amenable.records.check import Check
from amenable.records.conversation import Conversation
from amenable.records.sample import ModelRef, Sample, SamplingSettings, StopReason


@dataclass(frozen=True)
class Asked:
    key: str
    family: str
    conversation: Conversation
    checks: tuple[Check, ...] = ()


ONE_TURN = Conversation.of(("user", "Name two seas, in lower case."))
THREE_TURNS = Conversation.of(("user", "Hi"), ("assistant", "Hello!"), ("user", "Lower case now."))
LOWER = Check("lowercase", value=True)


def asked(conversation: Conversation = ONE_TURN, *checks: Check) -> Asked:
    return Asked("p1", "open_question", conversation, checks)


def sample(reply: str, stop_reason: StopReason = "stop") -> Sample:
    return Sample(
        prompt=ONE_TURN,
        reply=reply,
        model=ModelRef("m", "0" * 64),
        settings=SamplingSettings(),
        seed=0,
        stop_reason=stop_reason,
        num_tokens=len(reply.split()),
    )


def marks(prompt: Asked, replied: Sample) -> dict[str, float]:
    return {mark.metric: mark.value for mark in score(prompt, replied)}


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("", 0),
        ("one two three", 0),  # no run of four
        ("one two three four", 0),  # a single run
        ("a b c d a b c d", 1 - 4 / 5),  # 5 runs: abcd bcda cdab dabc abcd, 4 of them different
        ("Sea sea SEA sea sea", 1 - 1 / 2),  # 2 runs, equal but for case
        ("go, go - go! go? go", 1 - 1 / 2),  # marks between words are no words
    ],
)
def test_repetition_is_the_share_of_four_word_runs_said_before(reply: str, expected: float):
    assert repetition(reply) == pytest.approx(expected)


def test_a_list_has_two_lines_that_open_like_items():
    assert has_list("1. Stir\n2. Wait")
    assert has_list("Bring:\n  * bread\n  * salt")
    assert not has_list("- only one")
    assert not has_list("1.5 litres\n2.5 litres")


@pytest.mark.parametrize(
    "reply",
    ["I can't help with that.", "I’m sorry, but no.", "That is unknown: I do not know the future."],
)
def test_a_refusal_is_found_by_its_opening(reply: str):
    assert is_refusal(reply)


@pytest.mark.parametrize("reply", ["You can't miss it.", "Sorry seems to be the hardest word.", ""])
def test_other_replies_are_no_refusals(reply: str):
    assert not is_refusal(reply)


def test_a_refusal_late_in_a_reply_does_not_count():
    assert not is_refusal("word " * 40 + "I cannot say.")


def test_a_share_of_checks_counts_each():
    prompt = asked(ONE_TURN, LOWER, Check("max_words", 2), Check("no_commas", value=True))

    # "black, red" has two words in lower case, and a comma: two of three.
    assert share_of_checks(prompt, "black, red") == pytest.approx(2 / 3)


def test_marks_of_a_sample():
    prompt = asked(THREE_TURNS, LOWER, Check("max_words", 2))

    assert marks(prompt, sample("the black sea")) == {
        "ends_by_itself": 1,
        "repetition": 0,
        "length": 3,
        "lists": 0,
        "refusals": 0,
        "instructions_met": 0.5,
        "constraints_met": 0,
        "keeps_to_the_last_turn": 0,
    }


def test_what_a_prompt_cannot_show_is_left_out():
    assert "keeps_to_the_last_turn" not in marks(asked(ONE_TURN, LOWER), sample("black"))
    assert "constraints_met" not in marks(asked(), sample("black"))


def test_a_reply_cut_at_the_limit_or_empty_has_not_ended_by_itself():
    assert marks(asked(), sample("black", "length"))["ends_by_itself"] == 0
    assert marks(asked(), sample(" \n"))["ends_by_itself"] == 0


def test_every_mark_has_its_metric():
    prompt = asked(THREE_TURNS, LOWER)

    assert set(marks(prompt, sample("black"))) <= set(METRICS)
