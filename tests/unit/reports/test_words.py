"""Sentences that say what was measured and never more."""

from dataclasses import replace

from tests.unit.reports.results import KINDS, MAIN, VALUES, difference, row

from amenable.evaluation.graders.constraints import GRADERS
from amenable.records.check import Check
from amenable.reports.result import Kind
from amenable.reports.words import CHECK_WORDS, check_words, findings, headline, subject_of

WITH_GUEST: dict[str, Kind] = {**KINDS, "guest": "instruct"}


def guest_row(guest: float, p: float = 0.001):
    gap = difference("v2", "guest", VALUES["v2"] - guest, p)
    return replace(
        row("constraints_met", {**VALUES, "guest": guest}, *MAIN.differences, gap),
    )


def test_the_headline_is_one_sentence_with_both_values_the_interval_and_n():
    assert headline([MAIN], KINDS) == (
        "Over 152 requests, v2 did exactly what was asked in 50 %, the base model helped by "
        "examples in 20 % (+30 points, 95 % interval +20 to +40)."
    )


def test_the_headline_says_when_it_could_be_chance():
    weak = replace(MAIN, differences=(difference("v2", "base (helped)", 0.05, p=0.4),))

    assert "which could be chance" in headline([weak], KINDS)


def test_a_ready_made_model_that_wins_is_named():
    said = headline([guest_row(0.8)], WITH_GUEST)

    assert said.endswith("; the ready-made guest did better, with 80 %.")


def test_a_lead_of_a_ready_made_model_that_could_be_chance_says_so():
    assert "(a lead that could be chance)" in headline([guest_row(0.52, p=0.7)], WITH_GUEST)


def test_a_ready_made_model_that_does_not_win_is_not_named():
    assert "guest" not in headline([guest_row(0.3)], WITH_GUEST)


def test_without_checks_the_headline_takes_endings_and_without_rows_it_claims_nothing():
    ends = row("ends_by_itself", VALUES, difference("v2", "base", 0.4))

    assert "came to an end in 50 %" in headline([ends], KINDS)
    assert headline([], KINDS) == "Too few prompts to measure a difference."


def test_one_model_alone_is_compared_with_nothing():
    alone = row("constraints_met", {"base": 0.1})

    assert "nothing to compare it with" in headline([alone], KINDS)


def test_findings_begin_with_the_main_measure_and_mark_chance():
    ends = row("ends_by_itself", VALUES, difference("v2", "base (helped)", 0.3))

    said = findings([ends, MAIN], KINDS)

    assert said == [
        "constraints_met: v2 50 %, base (helped) 20 % "
        "(+30 points, 95 % interval +20 to +40, n = 152).",
        "constraints_met: v2 50 %, v1 45 % "
        "(+5 points, 95 % interval −5 to +15, n = 152; this could be chance).",
        "ends_by_itself: v2 50 %, base (helped) 20 % "
        "(+30 points, 95 % interval +20 to +40, n = 152).",
    ]


def test_a_row_is_about_the_newest_version_then_a_ready_made_model():
    assert subject_of(MAIN, KINDS) == "v2"
    assert subject_of(row("x", {"base": 0.1, "guest": 0.2}), WITH_GUEST) == "guest"


def test_every_kind_of_check_has_words_and_an_unknown_one_is_still_said():
    assert set(CHECK_WORDS) == set(GRADERS)
    assert check_words(Check("rhymes", 4)) == "rhymes: 4"
