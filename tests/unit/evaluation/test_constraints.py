"""Every kind of check: a reply that meets it, and replies that miss it narrowly."""

import pytest

from amenable.evaluation.graders.constraints import (
    EVALUATION_KINDS,
    FEEDBACK_KINDS,
    GRADERS,
    all_met,
    is_met,
)
from amenable.records.check import Check, CheckValue
from amenable.records.errors import NotFoundError

CASES: list[tuple[str, CheckValue, str, str]] = [
    ("max_words", 3, "One two three.", "One two three four."),
    ("min_words", 3, "One two three.", "One two."),
    ("exact_words", 2, "Well-known don'ts", "Well known don'ts"),
    ("exact_bullets", 2, "Bring:\n- bread\n* salt", "- bread\n- salt\n- oil"),
    ("exact_bullets", 1, "- bread", "-bread"),
    ("numbered_items", 2, "1. Stir.\n2) Wait.", "1. Stir.\n3. Wait."),
    ("numbered_items", 2, "1. Stir.\n2. Wait.", "2. Wait.\n1. Stir."),
    ("include_words", ("sea", "salt"), "Sea and SALT.", "Seaside and salt."),
    ("avoid_words", ("sea",), "The seaside.", "By the sea."),
    ("lowercase", True, "all small, 3 of them", "All small"),
    ("uppercase", True, "ALL LARGE, 3 OF THEM", "ALL LARGe"),
    ("json_keys", ("a", "b"), '{"b": 1, "a": null}', '{"a": 1}'),
    ("json_keys", ("a",), '```json\n{"a": 1}\n```', 'Here: {"a": 1}'),
    ("json_keys", ("a",), '{"a": [1, 2]}', '[{"a": 1}]'),
    ("starts_with", "Dear Ada", "Dear Ada, hello.", "dear Ada, hello."),
    ("ends_with", "Yours, Bo", "Hello. Yours, Bo", "Hello. Yours, Bo."),
    ("exact_sentences", 2, "It costs 3.50 euros. Really?", "It costs 3.50 euros."),
    ("exact_sentences", 1, "He said “go.”", "He said “go.” She went"),
    ("max_sentences", 1, "One!", "One. Two"),
    ("exact_paragraphs", 2, "One.\n\nTwo.", "One.\nTwo."),
    ("one_of", ("yes", "no"), "Yes.", "Yes, certainly."),
    ("last_line_starts_with", "Answer:", "6 * 7 = 42\nAnswer: 42\n", "Answer: 42\nDone."),
    ("no_commas", True, "First and then", "First, then"),
    ("no_digits", True, "three", "3"),
    ("quoted", True, '"All of it."', '"Half" of it'),
    ("semicolon_list", 3, "tea; milk; bread.", "tea; milk"),
    ("semicolon_list", 2, "tea; milk", "tea;\nmilk"),
    ("bracket_title", True, "[The sea]\nIt is wide.", "[The sea] It is wide."),
]


@pytest.mark.parametrize(("kind", "value", "meets", "misses"), CASES)
def test_a_check_tells_a_reply_that_meets_it_from_one_that_just_misses(
    kind: str, value: CheckValue, meets: str, misses: str
):
    check = Check(kind, value)

    assert is_met(check, meets)
    assert not is_met(check, misses)


def test_every_kind_has_a_case_here():
    assert {kind for kind, *_ in CASES} == set(GRADERS)


def test_evaluation_and_feedback_share_no_kind():
    assert not EVALUATION_KINDS.keys() & FEEDBACK_KINDS.keys()


@pytest.mark.parametrize("reply", ["", "  \n", "...", "—"])
@pytest.mark.parametrize("kind", ["max_words", "avoid_words", "lowercase", "no_digits"])
def test_a_reply_without_words_meets_nothing(kind: str, reply: str):
    value: CheckValue = {"max_words": 5, "avoid_words": ("sea",)}.get(kind, True)

    assert not is_met(Check(kind, value), reply)


def test_white_space_around_a_reply_does_not_count():
    assert is_met(Check("starts_with", "Dear"), "\n  Dear Ada")


def test_all_checks_must_be_met():
    checks = [Check("max_words", 3), Check("lowercase", value=True)]

    assert all_met(checks, "two words")
    assert not all_met(checks, "Two words")


@pytest.mark.parametrize("reply", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}", '{"a": NaN'])
def test_json_that_no_parser_likes_is_not_met_and_breaks_nothing(reply: str):
    assert not is_met(Check("json_keys", ("b",)), reply)


def test_an_unknown_kind_is_named_with_those_that_are_known():
    with pytest.raises(NotFoundError, match=r"'rhymes'.*max_words"):
        is_met(Check("rhymes", value=True), "so it goes")


@pytest.mark.parametrize(
    "check",
    [Check("max_words", "three"), Check("include_words", 3), Check("starts_with", ("a",))],
    ids=lambda check: check.kind,
)
def test_a_value_of_the_wrong_kind_is_refused(check: Check):
    with pytest.raises(ValueError, match="this check needs"):
        is_met(check, "some reply")
