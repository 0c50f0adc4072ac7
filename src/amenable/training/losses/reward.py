"""Rewards from comparisons: the log-odds that one reply is chosen are a difference of scores."""

# Shapes: E = heads of the ensemble, K = scored replies, C = comparisons between them.

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from amenable.training.losses.output import LossOutput, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Scores of replies, and comparisons as positions among them."""

    scores_EK: Tensor
    better_C: Tensor  # int64; of a tie, either
    worse_C: Tensor  # int64
    is_tie_C: Tensor
    margin_C: Tensor
    """By how much at least, from the strength of the judgement; 0 for ties."""
    weight_EC: Tensor
    """How much each comparison counts for each head."""


def reward_loss(compared: Compared, *, weight_in_step: float, centring: float) -> LossOutput:
    """Bradley and Terry 1952, with margins (Llama 2, arXiv 2307.09288, equation 2).

    A tie is half a judgement either way. Differences leave free where zero is: `centring` times
    the squared sum of both scores keeps it between them (Eisenstein et al., arXiv 2312.09244).
    `weight_in_step` is summed over comparisons and heads of the whole optimizer step.
    """
    better_EC = compared.scores_EK[:, compared.better_C]
    worse_EC = compared.scores_EK[:, compared.worse_C]
    gap_EC = better_EC - worse_EC
    right_EC = -logsigmoid(gap_EC - compared.margin_C)
    judged_EC = torch.where(compared.is_tie_C, 0.5 * (right_EC - logsigmoid(-gap_EC)), right_EC)
    loss_EC = judged_EC + centring * (better_EC + worse_EC).square()
    with torch.no_grad():
        decided_C = ~compared.is_tie_C
        tallies = {
            "loss": Tally(judged_EC.sum(), judged_EC.numel()),
            "score_square": Tally(compared.scores_EK.square().sum(), compared.scores_EK.numel()),
        }
        if num_decided := int(decided_C.sum()):
            mean_gap_C = gap_EC.mean(0)[decided_C]
            tallies["accuracy"] = Tally((mean_gap_C > 0).float().sum(), num_decided)
            tallies["margin"] = Tally(mean_gap_C.sum(), num_decided)
    return LossOutput((compared.weight_EC * loss_EC).sum() / weight_in_step, tallies)
