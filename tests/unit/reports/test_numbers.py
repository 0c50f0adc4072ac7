"""Numbers as people read them."""

import pytest

from amenable.records.measurement import Difference
from amenable.reports.numbers import interval_text, p_text, signed, value_text, verdict


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "share", "0 %"),
        (1, "share", "100 %"),
        (0.995, "share", "99.5 %"),
        (0.455, "share", "46 %"),
        (23.0, "perplexity", "23.0"),
        (131.2, "words", "131"),
        (0.9876, "bits per byte", "0.988"),
    ],
)
def test_values_in_their_unit(value: float, unit: str, text: str):
    assert value_text(value, unit) == text


def test_differences_carry_their_sign_and_nothing_has_none():
    assert interval_text(-0.052, 0.114, "share") == "−5 to +11"
    assert signed(0.0, "words") == "0"
    assert signed(0.0001, "share") == "0"


@pytest.mark.parametrize(
    ("p", "text"), [(0.0004, "p < 0.001"), (0.049, "p = 0.05"), (0.2345, "p = 0.23"), (1, "p = 1")]
)
def test_p_values(p: float, text: str):
    assert p_text(p) == text


@pytest.mark.parametrize(
    ("value", "p", "better", "said"),
    [
        (0.3, 0.01, "higher", "better"),
        (-0.3, 0.01, "higher", "worse"),
        (0.3, 0.01, "lower", "worse"),
        (-0.3, 0.01, "lower", "better"),
        (0.3, 0.01, "neither", "more"),
        (-0.3, 0.01, "neither", "less"),
        (0.3, 0.06, "higher", "could be chance"),
        (0.05, 0.01, "higher", "could be chance"),  # the interval holds zero
    ],
)
def test_a_verdict_says_no_more_than_was_measured(value: float, p: float, better: str, said: str):
    found = Difference(model="a", against="b", value=value, low=value - 0.1, high=value + 0.1, p=p)

    assert verdict(found, better) == said
