"""Preference losses: log-probabilities of chosen and rejected replies in, a loss out."""

# Shapes: P = pairs.

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from amenable.training.losses.output import LossOutput, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Summed log-probabilities of each pair's replies under the policy and under its reference."""

    chosen_P: Tensor
    rejected_P: Tensor
    reference_chosen_P: Tensor
    reference_rejected_P: Tensor
    num_chosen_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCounts:
    """How many pairs and chosen tokens the whole optimizer step holds."""

    pairs: int
    chosen_tokens: int


def dpo_loss(
    pairs: Pairs, counts: PairCounts, *, beta: float, flip_rate: float, sft_weight: float
) -> LossOutput:
    """Direct preference optimisation, with imitation of the chosen reply beside it.

    Rafailov et al. 2023 (arXiv 2305.18290), equation 7; with a flip rate its conservative form,
    (1 - f) * loss(chosen) + f * loss(rejected). Chosen and rejected gains are reported apart: a
    chosen reply that becomes less likely is displacement (arXiv 2410.08847).
    """
    gain_chosen_P = pairs.chosen_P - pairs.reference_chosen_P
    gain_rejected_P = pairs.rejected_P - pairs.reference_rejected_P
    margin_P = beta * (gain_chosen_P - gain_rejected_P)
    loss_P = -(1 - flip_rate) * logsigmoid(margin_P) - flip_rate * logsigmoid(-margin_P)
    imitation = -pairs.chosen_P.sum() / counts.chosen_tokens
    num_pairs = len(loss_P)
    with torch.no_grad():
        tallies = {
            "loss": Tally(loss_P.sum(), num_pairs),
            "accuracy": Tally((margin_P > 0).float().sum(), num_pairs),
            "margin": Tally(margin_P.sum(), num_pairs),
            "gain_chosen": Tally(gain_chosen_P.sum(), num_pairs),
            "gain_rejected": Tally(gain_rejected_P.sum(), num_pairs),
            "imitation": Tally(-pairs.chosen_P.sum(), pairs.num_chosen_tokens),
        }
    return LossOutput(loss_P.sum() / counts.pairs + sft_weight * imitation, tallies)
