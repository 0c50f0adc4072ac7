"""How a step is cut into microbatches must not change the update, in fp32 to the sixth digit."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from tests.tiny import shake, tiny_policy
from torch import Tensor

from amenable.chat.encode import TokenRow
from amenable.models.adapters import AdapterShape
from amenable.models.policy import Policy
from amenable.models.reward_model import RewardModel
from amenable.training.finetune import Budget, LikelihoodMethod
from amenable.training.losses.preference import PreferenceKnobs
from amenable.training.optimizer import MasterWeights
from amenable.training.preference import PreferenceMethod, RowPair
from amenable.training.reward import Judged, Order, RewardMethod, orders_of_ranking
from amenable.training.step import Method, Update
from amenable.training.unpaired import JudgedRow, UnpairedMethod

BUDGET = Budget(per_pack=10_000, per_step=10_000)
CUTS = [[[0, 1, 2, 3]], [[2, 0], [3, 1]], [[3], [0], [1], [2]], [[1], [2, 3, 0]]]


def row(start: int, prompt: int, reply: int) -> TokenRow:
    tokens = [2, 4, *range(start, start + prompt + reply), 5]
    return TokenRow(tokens, [False] * (2 + prompt) + [True] * (reply + 1))


ROWS = [row(20, 3, 4), row(60, 15, 2), row(90, 2, 16), row(130, 1, 1)]
PAIRS = [
    RowPair(each, row(200 + at, 3, 9 - 2 * at), weight=1.0 + at / 4, flip_rate=at / 10)
    for at, each in enumerate(ROWS)
]
KNOBS = PreferenceKnobs("dpo", beta=0.1, margin=0.0, flips="conservative", sft_weight=0.2)


def finetuning(policy: Policy) -> LikelihoodMethod:
    return LikelihoodMethod(policy, ROWS, BUDGET, seed=1)


def preferring(policy: Policy) -> PreferenceMethod:
    reference = torch.tensor([[-30.0, -40.0], [-9.0, -33.0], [-90.0, -45.0], [-12.0, -20.0]])
    return PreferenceMethod(policy, PAIRS, reference, KNOBS, BUDGET, seed=1)


def one_by_one(policy: Policy) -> UnpairedMethod:
    """Good and bad replies; strangers of other lengths, so that packs of them differ too."""
    judged = [
        JudgedRow(each, row(300 + at, 3, 2 + 5 * at), is_good=at % 2 == 0, weight=1.0 + at)
        for at, each in enumerate(ROWS)
    ]
    reference = torch.tensor([[-30.0, -40.0], [-9.0, -93.0], [-90.0, -145.0], [-12.0, -220.0]])
    return UnpairedMethod(policy, judged, reference, 0.1, BUDGET, seed=1)


def rewarding(policy: Policy) -> RewardMethod:
    """Pairs, a tie, a ranking of three; three heads that met other samples of them."""
    orders = [
        [Order(0, 1, margin=0.5)],
        [Order(1, 0, is_tie=True)],
        orders_of_ranking([1, 2, 2]),
        [Order(1, 0, weight=2.0)],
    ]
    judged = [
        Judged.of(
            [each, row(200 + at, 3, 9 - 2 * at), row(400 + at, 2, 3)][: 3 if at == 2 else 2], said
        )
        for at, (each, said) in enumerate(zip(ROWS, orders, strict=True))
    ]
    return RewardMethod(RewardModel.on(policy, 3, seed=2), judged, 0.01, BUDGET, seed=1)


def after_one_step(
    folder: Path, cut: list[list[int]], make: Callable[[Policy], Method[object]]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Gradients are read before AdamW divides them by their own size, which would hide a scale."""
    policy = tiny_policy(folder)
    policy.adapters.add("a", AdapterShape(rank=2, alpha=4.0, marker_ids=(4, 5)), seed=1)
    shake(policy, "a", 1, size=0.02)  # B is zero at birth, and then A would have no gradient
    weights = MasterWeights(policy.adapters.parameters("a"), weight_decay=0.0)
    found: dict[str, Tensor] = {}
    step = weights.step

    def note_and_step(learning_rate: float, max_grad_norm: float) -> float:
        found.update({name: total.clone() for name, total in weights.sums.items()})
        return step(learning_rate, max_grad_norm)

    weights.step = note_and_step
    metrics = Update(make(policy), weights).take(cut, 1e-3, max_grad_norm=1e9)
    return found, metrics


@pytest.mark.parametrize("make", [finetuning, preferring, one_by_one, rewarding])
@pytest.mark.parametrize("cut", CUTS[1:], ids=str)
def test_the_update_does_not_depend_on_the_cut(
    tmp_path: Path, cut: list[list[int]], make: Callable[[Policy], Method[object]]
):
    whole, whole_metrics = after_one_step(tmp_path / "base", CUTS[0], make)
    pieces, metrics = after_one_step(tmp_path / "base", cut, make)
    assert metrics == pytest.approx(whole_metrics, rel=1e-5)
    for name, gradient in whole.items():
        size = float(gradient.abs().max())
        torch.testing.assert_close(pieces[name], gradient, rtol=0, atol=2e-6 * max(1.0, size))


def test_padding_costs_nothing(tmp_path: Path):
    """A short row beside a long one is scored as it is alone."""
    policy = tiny_policy(tmp_path / "base")

    def loss(cut: Sequence[Sequence[int]]) -> float:
        method = finetuning(policy)
        counts = method.counts(cut)
        return sum(float(method.loss(batch, counts).total) for batch in cut)

    with torch.no_grad():
        assert loss([[2, 3]]) == pytest.approx(loss([[2], [3]]), rel=1e-6)
