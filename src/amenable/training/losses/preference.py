"""Preference losses: what a judgement between two replies says about their log-probabilities.

Every form is a difference d, positive where the policy already agrees with the choice, and a curve
that falls as d grows. A choice that is mistaken with probability f is met in one of two ways:

    conservative  (1 - f) curve(d) + f curve(-d)                   (Mitchell 2023, cDPO)
    robust        [(1 - f) curve(d) - f curve(-d)] / (1 - 2 f)     (arXiv 2403.00409, equation 12)
"""

# Shapes: P = pairs.

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from amenable.training.losses.output import LossOutput, Tally

Form = Literal["dpo", "dpo_per_token", "ipo", "orpo", "simpo"]
Flips = Literal["conservative", "robust"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """One side of every pair: summed log-probabilities in nats, fp32, and how many tokens."""

    log_probs_P: Tensor
    reference_P: Tensor
    """Under the frozen parent; not read by forms without a reference."""
    num_tokens_P: Tensor

    @property
    def gain_P(self) -> Tensor:
        return self.log_probs_P - self.reference_P

    @property
    def mean_P(self) -> Tensor:
        return self.log_probs_P / self.num_tokens_P


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    chosen: Replies
    rejected: Replies
    weight_P: Tensor
    """How much each judgement counts."""
    flip_rate_P: Tensor
    """How likely each judgement is a mistake, in [0, 0.5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCounts:
    """What the whole optimizer step holds."""

    weight: float
    chosen_tokens: int


class PreferenceKnobs(NamedTuple):
    form: Form
    beta: float
    margin: float
    """SimPO's target for the difference of the means, times beta."""
    flips: Flips
    sft_weight: float


def _gains(pairs: Pairs) -> Tensor:
    return pairs.chosen.gain_P - pairs.rejected.gain_P


def _mean_gains(pairs: Pairs) -> Tensor:
    chosen_P = pairs.chosen.gain_P / pairs.chosen.num_tokens_P
    return chosen_P - pairs.rejected.gain_P / pairs.rejected.num_tokens_P


def _means(pairs: Pairs) -> Tensor:
    return pairs.chosen.mean_P - pairs.rejected.mean_P


def _log_odds(pairs: Pairs) -> Tensor:
    return _log_odds_of(pairs.chosen.mean_P) - _log_odds_of(pairs.rejected.mean_P)


def _log_odds_of(log_prob_P: Tensor) -> Tensor:
    """log p / (1 - p), without forming 1 - p where p is nearly 1."""
    return log_prob_P - torch.log(-torch.expm1(log_prob_P.clamp(max=-1e-6)))


def _logistic(d_P: Tensor, knobs: PreferenceKnobs) -> Tensor:
    return -logsigmoid(knobs.beta * d_P)


def _logistic_beyond(d_P: Tensor, knobs: PreferenceKnobs) -> Tensor:
    return -logsigmoid(knobs.beta * d_P - knobs.margin)


def _square(d_P: Tensor, knobs: PreferenceKnobs) -> Tensor:
    return (d_P - 1 / (2 * knobs.beta)).square()


def _weighted_logistic(d_P: Tensor, knobs: PreferenceKnobs) -> Tensor:
    return -knobs.beta * logsigmoid(d_P)


class Shape(NamedTuple):
    difference: Callable[[Pairs], Tensor]
    curve: Callable[[Tensor, PreferenceKnobs], Tensor]
    needs_reference: bool


SHAPES: dict[Form, Shape] = {
    # Rafailov et al. 2023 (arXiv 2305.18290), equation 7.
    "dpo": Shape(_gains, _logistic, needs_reference=True),
    # Lambert et al. 2024 (Tulu 3, arXiv 2411.15124), section 5.1: gains per token.
    "dpo_per_token": Shape(_mean_gains, _logistic, needs_reference=True),
    # Azar et al. 2023 (arXiv 2310.12036), equation 17, with gains per token, as its authors do.
    "ipo": Shape(_mean_gains, _square, needs_reference=True),
    # Hong et al. 2024 (arXiv 2403.07691), equation 7; beta is their lambda.
    "orpo": Shape(_log_odds, _weighted_logistic, needs_reference=False),
    # Meng et al. 2024 (arXiv 2405.14734), equation 6.
    "simpo": Shape(_means, _logistic_beyond, needs_reference=False),
}


def preference_loss(pairs: Pairs, counts: PairCounts, knobs: PreferenceKnobs) -> LossOutput:
    """The mean over the step's judgements by weight, and imitation of the chosen replies beside it.

    Chosen and rejected replies are reported apart, as gains over the reference or, where there is
    none, as they are: a chosen reply that becomes less likely is displacement (arXiv 2410.08847).
    """
    shape = SHAPES[knobs.form]
    d_P = shape.difference(pairs)
    loss_P = _with_flips(d_P, pairs.flip_rate_P, shape, knobs)
    imitation = -pairs.chosen.log_probs_P.sum() / counts.chosen_tokens
    total = (pairs.weight_P * loss_P).sum() / counts.weight + knobs.sft_weight * imitation
    with torch.no_grad():
        per_pair = {
            "loss": loss_P,
            "accuracy": (d_P > 0).float(),
            "margin": d_P,
        }
        for name, side in (("chosen", pairs.chosen), ("rejected", pairs.rejected)):
            if shape.needs_reference:
                per_pair[f"gain_{name}"] = side.gain_P
            else:
                per_pair[f"log_prob_{name}"] = side.log_probs_P
        tallies = {name: Tally(each_P.sum(), len(d_P)) for name, each_P in per_pair.items()}
        num_tokens = int(pairs.chosen.num_tokens_P.sum())
        tallies["imitation"] = Tally(-pairs.chosen.log_probs_P.sum(), num_tokens)
    return LossOutput(total, tallies)


def _with_flips(d_P: Tensor, flip_rate_P: Tensor, shape: Shape, knobs: PreferenceKnobs) -> Tensor:
    right_P, wrong_P = shape.curve(d_P, knobs), shape.curve(-d_P, knobs)
    if knobs.flips == "robust":
        return ((1 - flip_rate_P) * right_P - flip_rate_P * wrong_P) / (1 - 2 * flip_rate_P)
    return (1 - flip_rate_P) * right_P + flip_rate_P * wrong_P
