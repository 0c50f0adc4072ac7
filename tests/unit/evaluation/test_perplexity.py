"""Perplexity and bits per byte, worked by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.evaluation.model_spec import ModelSpec
from amenable.evaluation.perplexity import TextLogProb, perplexity, perplexity_rows, texts_read
from amenable.records.errors import DataError

BASE = ModelSpec(name="base", kind="base", form="plain")
V1 = ModelSpec(name="v1", kind="policy", form="gemma", parent="base")
GUEST = ModelSpec(name="guest", kind="instruct", form="chatml")


def text(key: str, nll: float, num_tokens: int, num_bytes: int = 100) -> TextLogProb:
    return TextLogProb(key=key, sum_log_prob=-nll, num_tokens=num_tokens, num_bytes=num_bytes)


def test_perplexity_divides_all_sums_once():
    # 10 nats over 4 tokens and 2 over 6: exp(12 / 10), not the mean of exp(2.5) and exp(1/3).
    assert perplexity([text("a", 10, 4), text("b", 2, 6)]) == pytest.approx(math.exp(1.2))


def test_rows_by_hand():
    read = {
        "base": [text("a", 10, 4), text("b", 20, 6)],
        "v1": [text("a", 12, 4), text("b", 24, 6)],
    }

    by_token, by_byte = perplexity_rows(read, [BASE, V1], seed=1)

    assert by_token.values["base"].value == pytest.approx(math.exp(3))
    assert by_token.values["v1"].value == pytest.approx(math.exp(3.6))
    # 30 nats over 200 bytes, in bits.
    assert by_byte.values["base"].value == pytest.approx(30 / 200 / math.log(2))
    difference = by_token.difference("v1", "base")
    assert difference is not None
    assert difference.value == pytest.approx(math.exp(3.6) - math.exp(3))
    assert difference.low > 0  # worse on each text, so on each draw of texts


def test_two_texts_are_never_surer_than_their_signs():
    read = {
        "base": [text("a", 10, 4), text("b", 20, 6), text("c", 5, 2)],
        "v1": [text("a", 12, 4), text("b", 24, 6), text("c", 5, 2)],
    }

    for row in perplexity_rows(read, [BASE, V1], seed=1):
        (difference,) = row.differences
        assert difference.p >= 0.5  # two texts differ: 2 / 2^2; the third says nothing
        assert difference.could_be_chance


def test_many_texts_that_differ_alike_are_no_chance():
    read = {
        name: [text(f"t{at}", 10 + at + more, 4) for at in range(12)]
        for name, more in (("base", 0), ("v1", 2))
    }

    by_token, _ = perplexity_rows(read, [BASE, V1], seed=1)

    (difference,) = by_token.differences
    assert difference.p == pytest.approx(2**-11)  # all twelve are worse; no draw is better
    assert not difference.could_be_chance


def test_other_tokens_are_left_out_of_perplexity_and_it_says_so():
    read = {
        "base": [text("a", 10, 4), text("b", 20, 6)],
        "guest": [text("a", 9, 5), text("b", 18, 7)],
    }

    by_token, by_byte = perplexity_rows(read, [BASE, GUEST], seed=1)

    assert set(by_token.values) == {"base"}
    assert "guest" in by_token.note
    assert set(by_byte.values) == {"base", "guest"}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(1, 100), st.integers(1, 50), st.integers(1, 200)),
        min_size=2,
        max_size=8,
    )
)
def test_a_model_against_itself_and_texts_in_any_order(read: list[tuple[float, int, int]]):
    texts = [text(f"t{at}", *each) for at, each in enumerate(read)]

    found = perplexity_rows({"base": texts, "v1": texts[::-1]}, [BASE, V1], seed=1)

    for row in found:
        (difference,) = row.differences
        assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1)


def test_one_text_or_none_makes_no_row():
    assert perplexity_rows({}, [BASE], seed=1) == []
    assert perplexity_rows({"base": [text("a", 10, 4)]}, [BASE], seed=1) == []


def test_models_that_read_different_texts_are_refused():
    read = {"base": [text("a", 1, 1), text("b", 1, 1)], "v1": [text("a", 1, 1)]}

    with pytest.raises(DataError, match="same texts"):
        perplexity_rows(read, [BASE, V1], seed=1)


def test_one_model_by_hand():
    found = texts_read([text("a", 10, 4, 100), text("b", 20, 6, 50)], seed=1)
    assert (found.num_texts, found.num_tokens, found.num_bytes) == (2, 10, 150)
    assert found.perplexity == pytest.approx(math.exp(30 / 10))
    assert found.bits_per_byte == pytest.approx(30 / math.log(2) / 150)
    # Drawing two of two texts with repeats: each by itself is an end, a quarter of the draws.
    assert found.perplexity_ends == pytest.approx((math.exp(10 / 4), math.exp(20 / 6)))
    bits = (10 / math.log(2) / 100, 20 / math.log(2) / 50)
    assert found.bits_per_byte_ends == pytest.approx(bits)


def test_a_single_text_tells_nothing_of_the_spread():
    found = texts_read([text("a", 10, 4)], seed=1)
    assert (found.perplexity_ends, found.bits_per_byte_ends) == (None, None)
