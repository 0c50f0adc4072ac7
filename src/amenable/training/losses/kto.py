"""Replies judged one by one, good or bad: a reply is worth what it gains over the usual gain."""

# Shapes: B = replies.

from dataclasses import dataclass

import torch
from torch import Tensor

from amenable.training.losses.output import LossOutput, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaired:
    """Summed log-probabilities in nats, fp32, under the policy and its frozen parent."""

    log_probs_B: Tensor
    reference_B: Tensor
    is_good_B: Tensor
    weight_B: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpairedCounts:
    """What the whole optimizer step holds."""

    weight: float
    usual_gain: float
    """KL from the parent, in nats: the mean gain of replies to other prompts, at least 0."""


def kto_loss(replies: Unpaired, counts: UnpairedCounts, *, beta: float) -> LossOutput:
    """Ethayarajh et al. 2024 (arXiv 2402.01306), equation 8.

    Good replies cost 1 - sigmoid(beta (gain - usual)), bad ones 1 - sigmoid(beta (usual - gain)).
    How much good and bad count, the paper's two lambdas, is in the weights.
    """
    gain_B = replies.log_probs_B - replies.reference_B
    sign_B = torch.where(replies.is_good_B, 1.0, -1.0)
    loss_B = torch.sigmoid(-sign_B * beta * (gain_B - counts.usual_gain))  # 1 - sigmoid(x)
    with torch.no_grad():
        good_B, num = replies.is_good_B.float(), len(gain_B)
        tallies = {
            "loss": Tally((replies.weight_B * loss_B).sum(), num),
            "usual_gain": Tally(gain_B.new_tensor(counts.usual_gain * num), num),
        }
        for name, mine_B in (("gain_good", good_B), ("gain_bad", 1 - good_B)):
            if count := int(mine_B.sum()):
                tallies[name] = Tally((mine_B * gain_B).sum(), count)
    return LossOutput((replies.weight_B * loss_B).sum() / counts.weight, tallies)
