"""How often scores agree with choices, worked by hand."""

import json
from math import exp, log

import pytest

from amenable.evaluation.agreement import (
    RewardResult,
    Scored,
    accuracy,
    agreement,
    from_json,
    to_json,
)
from amenable.records.errors import DataError

ONE_HEAD = [
    Scored(gaps=(1.2,), longer=5),
    Scored(gaps=(-1.2,), longer=-3),
    Scored(gaps=(0.0,), longer=0),
    Scored(gaps=(log(7),), longer=2),  # odds of 7 to 1: it is sure by 7/8
]
CHANCE = 1 / (1 + exp(-1.2))


def test_equal_scores_are_half_right():
    """Right, wrong, half, right."""
    found = accuracy(ONE_HEAD)
    assert found.value == 2.5 / 4
    assert 0 < found.low < found.value < found.high < 1


def test_calibration_is_read_from_how_sure_it_was_of_its_favourite():
    found = agreement(ONE_HEAD, ONE_HEAD)
    filled = {(each.low, each.high): each for each in found.bins if each.num}
    assert [(each.low, each.high) for each in found.bins][:2] == [(0.5, 0.55), (0.55, 0.6)]
    assert len(found.bins) == 10
    assert filled.keys() == {(0.5, 0.55), (0.75, 0.8), (0.85, 0.9)}
    middle = filled[0.75, 0.8]
    assert (middle.num, middle.predicted, middle.right) == (2, pytest.approx(CHANCE), 0.5)
    # The guess is half right as predicted; two are 0.5 where CHANCE was said, one 1 for 7/8.
    expected = (0.0 + 2 * (CHANCE - 0.5) + 1 / 8) / 4
    assert found.calibration_error == pytest.approx(expected)


def test_length_alone_goes_by_what_was_learned_from():
    """Longer, shorter, the same, longer: the longer one is chosen on 2.5 of 4."""
    shorter = [Scored(gaps=(0.1,), longer=-4)]
    by_longer, by_shorter = (agreement(ONE_HEAD, each) for each in (ONE_HEAD, shorter))
    assert by_longer.longer_wins.value == by_shorter.longer_wins.value == 0.625
    assert (by_longer.length, by_longer.by_length.value) == ("longer", 0.625)
    assert (by_shorter.length, by_shorter.by_length.value) == ("shorter", 0.375)


def test_heads_disagree_with_their_mean():
    """One of two against a mean of 1; none against 2; a head of 0 is against nobody."""
    scored = [Scored((3.0, -1.0), 1), Scored((1.0, 3.0), 1), Scored((0.0, -2.0), 1)]
    assert agreement(scored, scored).disagreement == pytest.approx(0.5 / 3)
    assert agreement(ONE_HEAD, ONE_HEAD).disagreement is None


def test_who_is_always_sure_and_right_is_calibrated():
    sure = [Scored(gaps=(50.0,), longer=1)] * 7
    found = agreement(sure, sure)
    assert found.bins[-1].num == 7  # a chance of 1 has no bin above it
    assert found.calibration_error == pytest.approx(0.0, abs=1e-9)


def result() -> RewardResult:
    return RewardResult(
        held_out=agreement(ONE_HEAD, ONE_HEAD),
        num_prompts_held_out=3,
        num_learned=4,
        learned_accuracy=accuracy(ONE_HEAD),
        num_both_bad=1,
        num_left_out=0,
        is_simulated=True,
    )


def test_a_result_is_read_as_it_was_written():
    assert from_json(to_json(result())) == result()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"num_learned": "4"}, "at num_learned, "),
        ({"is_simulated": None}, "at is_simulated, "),
        ({"held_out": {}}, r"at held_out\.num, "),
    ],
)
def test_a_result_of_another_form_is_refused(spoil: dict[str, object], said: str):
    body = json.loads(to_json(result())) | spoil
    with pytest.raises(DataError, match=f"no result of a reward model: {said}.*Train it again"):
        from_json(json.dumps(body).encode())
    with pytest.raises(DataError, match="at its start"):
        from_json(b"{")
