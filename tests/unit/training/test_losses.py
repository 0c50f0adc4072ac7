"""Losses worked by hand."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from amenable.training.losses.kto import Unpaired, UnpairedCounts, kto_loss
from amenable.training.losses.likelihood import likelihood_loss
from amenable.training.losses.output import LossOutput
from amenable.training.losses.preference import (
    Form,
    PairCounts,
    Pairs,
    PreferenceKnobs,
    Replies,
    preference_loss,
)
from amenable.training.losses.reward import Compared, reward_loss
from amenable.training.reward import orders_of_ranking

DPO = PreferenceKnobs("dpo", beta=0.1, margin=0.0, flips="conservative", sft_weight=0.0)


def pairs(
    values: list[tuple[float, float, float, float]],
    tokens: tuple[float, float] = (4.0, 5.0),
    flip: float = 0.0,
) -> Pairs:
    """Of (chosen, rejected, reference of chosen, reference of rejected)."""
    columns = torch.tensor(values, dtype=torch.float64).T
    sides = [
        Replies(
            log_probs_P=columns[side].clone().requires_grad_(),
            reference_P=columns[2 + side],
            num_tokens_P=torch.full_like(columns[0], tokens[side]),
        )
        for side in (0, 1)
    ]
    return Pairs(
        chosen=sides[0],
        rejected=sides[1],
        weight_P=torch.ones_like(columns[0]),
        flip_rate_P=torch.full_like(columns[0], flip),
    )


def loss_of(given_pairs: Pairs, *, num: int, knobs: PreferenceKnobs = DPO) -> LossOutput:
    return preference_loss(given_pairs, PairCounts(weight=num, chosen_tokens=8), knobs)


def mean(output: LossOutput, name: str) -> float:
    tally = output.tallies[name]
    return float(tally.total) / tally.count


def gradient(tensor: Tensor) -> list[float]:
    assert tensor.grad is not None
    return tensor.grad.tolist()


def test_likelihood_is_divided_by_the_tokens_of_the_whole_step():
    log_probs = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    output = likelihood_loss(log_probs, tokens_in_step=12)
    output.total.backward()
    assert output.total.item() == pytest.approx(0.5)  # (1 + 2 + 3) / 12
    assert mean(output, "loss") == pytest.approx(2.0)  # of this microbatch alone: 6 / 3
    assert gradient(log_probs) == pytest.approx([-1 / 12] * 3)


def test_likelihood_of_nothing_is_zero():
    assert likelihood_loss(torch.empty(0), tokens_in_step=5).total.item() == 0.0


def test_dpo_by_hand():
    # Gains: chosen -10 - -12 = 2, rejected -20 - -17 = -3. Margin: 0.1 * (2 - -3) = 0.5.
    # Loss: -ln(1 / (1 + e^-0.5)) = ln(1 + e^-0.5) = ln 1.606531 = 0.474077.
    one = pairs([(-10.0, -20.0, -12.0, -17.0)])
    output = loss_of(one, num=1)
    output.total.backward()
    assert output.total.item() == pytest.approx(0.4740769842)
    assert mean(output, "margin") == pytest.approx(5.0)
    assert mean(output, "gain_chosen") == pytest.approx(2.0)
    assert mean(output, "gain_rejected") == pytest.approx(-3.0)
    assert mean(output, "accuracy") == 1.0
    # d loss / d chosen = -beta * sigmoid(-margin) = -0.1 * 0.377541, and the opposite for rejected.
    assert gradient(one.chosen.log_probs_P) == pytest.approx([-0.0377540669])
    assert gradient(one.rejected.log_probs_P) == pytest.approx([0.0377540669])


def test_dpo_with_mistaken_choices_by_hand():
    # 0.9 * ln(1 + e^-0.5) + 0.1 * ln(1 + e^0.5) = 0.9 * 0.474077 + 0.1 * 0.974077 = 0.524077.
    output = loss_of(pairs([(-10.0, -20.0, -12.0, -17.0)], flip=0.1), num=1)
    assert output.total.item() == pytest.approx(0.5240769842)


def test_imitation_by_hand():
    # Margin 0 costs ln 2; imitation: 10 nats over 8 chosen tokens of the step, times 0.2 = 0.25.
    one = pairs([(-10.0, -20.0, -10.0, -20.0)])
    output = loss_of(one, num=1, knobs=DPO._replace(sft_weight=0.2))
    assert output.total.item() == pytest.approx(math.log(2) + 0.25)
    assert mean(output, "imitation") == pytest.approx(2.5)  # 10 nats over its own 4 tokens
    assert mean(output, "loss") == pytest.approx(math.log(2))


def test_two_pairs_of_a_step_of_four_count_half():
    # Margins 0.5 and -0.5: (0.474077 + 0.974077) / 4 = 0.362038.
    two = pairs([(-10.0, -20.0, -12.0, -17.0), (-12.0, -17.0, -10.0, -20.0)])
    output = loss_of(two, num=4)
    assert output.total.item() == pytest.approx(0.3620384921)
    assert mean(output, "accuracy") == 0.5


def test_margins_far_out_neither_overflow_nor_vanish():
    far = pairs([(-1e4, 0.0, 0.0, -1e4), (0.0, -1e4, -1e4, 0.0)])
    output = loss_of(far, num=1)
    output.total.backward()
    # Margins -2000 and 2000: 2000 + 0; slopes -0.1 and 0.
    assert output.total.item() == pytest.approx(2000.0)
    assert gradient(far.chosen.log_probs_P) == pytest.approx([-0.1, 0.0])


log_prob = st.floats(-200, 0)


@settings(deadline=None)  # machines are shared
@given(values=st.lists(st.tuples(log_prob, log_prob), min_size=1, max_size=5))
def test_a_policy_that_is_its_reference_costs_ln_2(values: list[tuple[float, float]]):
    same = pairs([(c, r, c, r) for c, r in values])
    assert loss_of(same, num=len(values)).total.item() == pytest.approx(math.log(2), abs=1e-9)


@settings(deadline=None)  # machines are shared
@given(st.tuples(log_prob, log_prob, log_prob, log_prob))
def test_a_swapped_pair_is_the_pair_with_all_choices_mistaken(
    value: tuple[float, float, float, float],
):
    chosen, rejected, reference_chosen, reference_rejected = value
    swapped = (rejected, chosen, reference_rejected, reference_chosen)
    flipped = loss_of(pairs([value], flip=1.0), num=1).total.item()
    assert loss_of(pairs([swapped]), num=1).total.item() == pytest.approx(flipped)


def knobs(form: Form, beta: float, **others: object) -> PreferenceKnobs:
    return DPO._replace(form=form, beta=beta, **others)


# Gains 2 over 4 tokens and -3 over 5; means -10/4 = -2.5 and -20/5 = -4.
ONE = (-10.0, -20.0, -12.0, -17.0)


def test_dpo_by_token_by_hand():
    # 2/4 - -3/5 = 1.1; ln(1 + e^-1.1) = 0.2873353.
    output = loss_of(pairs([ONE]), num=1, knobs=knobs("dpo_per_token", 1.0))
    assert output.total.item() == pytest.approx(0.2873353, abs=1e-6)


def test_robust_dpo_by_hand():
    # (0.9 * 0.4740770 - 0.1 * 0.9740770) / 0.8 = 0.4115770; the mean over true and false choices
    # is the loss of the true one alone: 0.9 * 0.4115770 + 0.1 * 1.0365770 = 0.4740770.
    robust = DPO._replace(flips="robust")
    said = loss_of(pairs([ONE], flip=0.1), num=1, knobs=robust).total.item()
    swapped = loss_of(pairs([(-20.0, -10.0, -17.0, -12.0)], flip=0.1), num=1, knobs=robust)
    assert said == pytest.approx(0.4115769842)
    assert 0.9 * said + 0.1 * swapped.total.item() == pytest.approx(0.4740769842)


def test_ipo_by_hand():
    # (1.1 - 1 / (2 * 0.5)) ^ 2 = 0.01.
    output = loss_of(pairs([ONE]), num=1, knobs=knobs("ipo", 0.5))
    assert output.total.item() == pytest.approx(0.01)


def test_simpo_by_hand():
    # 2 * (-2.5 - -4) - 1 = 2; ln(1 + e^-2) = 0.1269280. The reference is not looked at.
    output = loss_of(pairs([ONE]), num=1, knobs=knobs("simpo", 2.0, margin=1.0))
    assert output.total.item() == pytest.approx(0.1269280, abs=1e-6)
    other = loss_of(pairs([(-10.0, -20.0, 5.0, 7.0)]), num=1, knobs=knobs("simpo", 2.0, margin=1.0))
    assert other.total.item() == output.total.item()


def test_orpo_by_hand():
    # Odds: e^-2.5 / (1 - e^-2.5) = 0.0894256, e^-4 / (1 - e^-4) = 0.0186574; ratio 4.7930.
    # -ln(4.7930 / 5.7930) = 0.1894989; times 0.1, and 10 nats over 8 chosen tokens of the step.
    output = loss_of(pairs([ONE]), num=1, knobs=knobs("orpo", 0.1, sft_weight=1.0))
    assert output.total.item() == pytest.approx(0.01894989 + 1.25, abs=1e-6)


def test_orpo_of_a_certain_reply_is_finite():
    certain = pairs([(-1e-9, -20.0, 0.0, 0.0)])
    output = loss_of(certain, num=1, knobs=knobs("orpo", 0.1))
    output.total.backward()
    assert math.isfinite(output.total.item())
    assert all(map(math.isfinite, gradient(certain.chosen.log_probs_P)))


def test_a_judgement_counts_by_its_weight():
    # The first counts three times: (3 * 0.474077 + 0.974077) / 4 = 0.599077.
    two = replace(
        pairs([ONE, (-12.0, -17.0, -10.0, -20.0)]),
        weight_P=torch.tensor([3.0, 1.0], dtype=torch.float64),
    )
    assert loss_of(two, num=4).total.item() == pytest.approx(0.5990769842)


@pytest.mark.parametrize("form", get_args(Form))
@settings(deadline=None)  # machines are shared
@given(st.tuples(log_prob, log_prob, log_prob, log_prob))
def test_agreeing_more_never_costs_more_unless_it_is_squared(
    form: Form, value: tuple[float, float, float, float]
):
    chosen, rejected, *references = value
    better = pairs([(chosen / 2, rejected, references[0], references[1])])  # nearer to certain
    now, then = (
        loss_of(each, num=1, knobs=knobs(form, 0.3)).total.item()
        for each in (pairs([value]), better)
    )
    assert form == "ipo" or then <= now + 1e-9


def unpaired(gains: list[float], good: list[bool], weights: list[float] | None = None) -> Unpaired:
    gain = torch.tensor(gains, dtype=torch.float64)
    return Unpaired(
        log_probs_B=(gain - 30).requires_grad_(),
        reference_B=torch.full_like(gain, -30),
        is_good_B=torch.tensor(good),
        weight_B=torch.tensor(weights or [1.0] * len(gains), dtype=torch.float64),
    )


def test_kto_by_hand():
    # Gains 5 (good) and -5 (bad), usual gain 1, beta 0.1.
    # Good: 1 - sigmoid(0.4) = 0.4013123; bad: 1 - sigmoid(0.6) = 0.3543437. Mean 0.3778280.
    replies = unpaired([5.0, -5.0], [True, False])
    output = kto_loss(replies, UnpairedCounts(weight=2, usual_gain=1.0), beta=0.1)
    output.total.backward()
    assert output.total.item() == pytest.approx(0.3778280, abs=1e-6)
    assert (mean(output, "gain_good"), mean(output, "gain_bad")) == pytest.approx((5.0, -5.0))
    # d / d gain: -beta s (1 - s) / 2 for the good one, with s = 0.4013123.
    slopes = [-0.1 * 0.4013123 * 0.5986877 / 2, 0.1 * 0.3543437 * 0.6456563 / 2]
    assert gradient(replies.log_probs_B) == pytest.approx(slopes, abs=1e-6)


def test_kto_of_good_replies_only_says_nothing_of_bad_ones():
    counts = UnpairedCounts(weight=4, usual_gain=0.0)
    output = kto_loss(unpaired([0.0], [True], [2.0]), counts, beta=0.1)
    assert output.total.item() == pytest.approx(2 * 0.5 / 4)
    assert "gain_bad" not in output.tallies


def compared(
    scores: list[list[float]], orders: list[tuple[int, int, bool, float]], weight: float = 1.0
) -> Compared:
    better, worse, ties, margins = zip(*orders, strict=True)
    return Compared(
        scores_EK=torch.tensor(scores, dtype=torch.float64, requires_grad=True),
        better_C=torch.tensor(better),
        worse_C=torch.tensor(worse),
        is_tie_C=torch.tensor(ties),
        margin_C=torch.tensor(margins, dtype=torch.float64),
        weight_EC=torch.full((len(scores), len(orders)), weight, dtype=torch.float64),
    )


def test_a_pair_of_rewards_by_hand():
    # Scores 2 and 1: ln(1 + e^-1) = 0.3132617; with a margin of 1 it is ln 2.
    pair = compared([[2.0, 1.0]], [(0, 1, False, 0.0)])
    output = reward_loss(pair, weight_in_step=1.0, centring=0.0)
    output.total.backward()
    assert output.total.item() == pytest.approx(0.3132616875)
    assert pair.scores_EK.grad is not None
    assert pair.scores_EK.grad[0].tolist() == pytest.approx([-0.2689414, 0.2689414])
    strong = compared([[2.0, 1.0]], [(0, 1, False, 1.0)])
    assert reward_loss(strong, weight_in_step=1.0, centring=0.0).total.item() == pytest.approx(
        math.log(2)
    )


def test_a_tie_pulls_both_scores_together():
    # Half of ln(1 + e^-1) + ln(1 + e^1) = (0.3132617 + 1.3132617) / 2.
    tie = compared([[2.0, 1.0]], [(0, 1, True, 0.0)])
    output = reward_loss(tie, weight_in_step=1.0, centring=0.0)
    output.total.backward()
    assert output.total.item() == pytest.approx(0.8132616875)
    assert tie.scores_EK.grad is not None
    up, down = tie.scores_EK.grad[0].tolist()
    assert up == pytest.approx(-down)
    assert up > 0
    assert "accuracy" not in output.tallies


def test_centring_by_hand():
    # 0.01 * (2 + 1)^2 = 0.09 beside the pair's own loss.
    pair = compared([[2.0, 1.0]], [(0, 1, False, 0.0)])
    output = reward_loss(pair, weight_in_step=1.0, centring=0.01)
    assert output.total.item() == pytest.approx(0.3132616875 + 0.09)


def test_a_ranking_of_three_counts_as_one_judgement():
    orders = orders_of_ranking([3, 1, 2])
    assert {(each.better, each.worse) for each in orders} == {(1, 0), (2, 0), (1, 2)}
    assert sum(each.weight for each in orders) == pytest.approx(1.0)
