"""Losses worked by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from amenable.training.losses.likelihood import likelihood_loss
from amenable.training.losses.output import LossOutput
from amenable.training.losses.preference import PairCounts, Pairs, dpo_loss


def pairs(values: list[tuple[float, float, float, float]], num_chosen_tokens: int = 4) -> Pairs:
    """Of (chosen, rejected, reference of chosen, reference of rejected)."""
    columns = torch.tensor(values, dtype=torch.float64).T
    return Pairs(
        chosen_P=columns[0].clone().requires_grad_(),
        rejected_P=columns[1].clone().requires_grad_(),
        reference_chosen_P=columns[2],
        reference_rejected_P=columns[3],
        num_chosen_tokens=num_chosen_tokens,
    )


def loss_of(given_pairs: Pairs, *, num: int, flip: float = 0.0, sft: float = 0.0) -> LossOutput:
    counts = PairCounts(pairs=num, chosen_tokens=8)
    return dpo_loss(given_pairs, counts, beta=0.1, flip_rate=flip, sft_weight=sft)


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
    assert mean(output, "margin") == pytest.approx(0.5)
    assert mean(output, "gain_chosen") == pytest.approx(2.0)
    assert mean(output, "gain_rejected") == pytest.approx(-3.0)
    assert mean(output, "accuracy") == 1.0
    # d loss / d chosen = -beta * sigmoid(-margin) = -0.1 * 0.377541, and the opposite for rejected.
    assert gradient(one.chosen_P) == pytest.approx([-0.0377540669])
    assert gradient(one.rejected_P) == pytest.approx([0.0377540669])


def test_dpo_with_mistaken_choices_by_hand():
    # 0.9 * ln(1 + e^-0.5) + 0.1 * ln(1 + e^0.5) = 0.9 * 0.474077 + 0.1 * 0.974077 = 0.524077.
    output = loss_of(pairs([(-10.0, -20.0, -12.0, -17.0)]), num=1, flip=0.1)
    assert output.total.item() == pytest.approx(0.5240769842)


def test_imitation_by_hand():
    # Margin 0 costs ln 2; imitation: 10 nats over 8 chosen tokens of the step, times 0.2 = 0.25.
    one = pairs([(-10.0, -20.0, -10.0, -20.0)])
    output = loss_of(one, num=1, sft=0.2)
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
    assert gradient(far.chosen_P) == pytest.approx([-0.1, 0.0])


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
    flipped = loss_of(pairs([value]), num=1, flip=1.0).total.item()
    assert loss_of(pairs([swapped]), num=1).total.item() == pytest.approx(flipped)
