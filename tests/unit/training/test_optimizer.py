"""Master weights, AdamW and the learning rate."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from amenable.records.errors import ModelError
from amenable.training import optimizer
from amenable.training.halves import joined
from amenable.training.optimizer import BETAS, EPSILON, MasterWeights, learning_rate_at


@settings(deadline=None)  # machines are shared
@given(
    num_steps=st.integers(1, 500),
    share=st.floats(0, 0.9, exclude_max=True),
    peak=st.floats(1e-6, 1),
)
def test_the_rate_rises_then_falls_and_never_leaves_its_bounds(
    num_steps: int, share: float, peak: float
):
    rates = [
        learning_rate_at(step, num_steps, peak=peak, warmup_share=share)
        for step in range(num_steps)
    ]
    warmup = max(1, round(num_steps * share))
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup - 1] == pytest.approx(peak)
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in rates)
    assert all(rate >= peak * 0.1 * (1 - 1e-9) for rate in rates[warmup:])


def test_half_way_down_the_cosine_by_hand():
    # Step 6 of 12 with 0 warm-up share (one step): (6 - 1) / 11 of the way down,
    # 0.1 + 0.45 * (1 + cos(0.4545 pi)) = 0.1 + 0.45 * 1.142315 = 0.614042.
    assert learning_rate_at(6, 12, peak=1.0, warmup_share=0.0) == pytest.approx(0.614042, abs=1e-6)


def test_the_update_is_torchs_adamw():
    start = torch.tensor([1.0, -2.0, 3.0])
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    weights = MasterWeights({"w": ours}, weight_decay=0.1)
    adamw = torch.optim.AdamW([theirs], lr=0.01, betas=BETAS, eps=EPSILON, weight_decay=0.1)
    for slope in (1.0, -0.5, 2.0):
        for parameter in (ours, theirs):
            (slope * parameter.square().sum()).backward()
        weights.step(0.01, max_grad_norm=1e9)
        adamw.step()
        adamw.zero_grad()
        torch.testing.assert_close(ours.data, theirs.data)


def test_long_gradients_are_shortened_and_their_length_told():
    parameter = nn.Parameter(torch.zeros(2))
    weights = MasterWeights({"w": parameter}, weight_decay=0.0)
    (parameter * torch.tensor([3.0, 4.0])).sum().backward()
    assert weights.step(0.1, max_grad_norm=1.0) == pytest.approx(5.0)  # the 3-4-5 triangle


def master(weights: MasterWeights) -> torch.Tensor:
    kept = weights.state()
    return joined(kept["weight/w"], kept["lower/w"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_of_every_size_are_updated_in_blocks_as_torchs_adamw_does_at_once(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(optimizer, "NUMBERS_AT_ONCE", 8)
    random = torch.Generator().manual_seed(3)
    ours = {
        str(at): nn.Parameter(torch.randn(shape, generator=random).to(dtype))
        for at, shape in enumerate([(5, 7), (2,), (3, 1), (8,), (17,)])
    }
    theirs = {name: nn.Parameter(each.detach().float()) for name, each in ours.items()}
    weights = MasterWeights(ours, weight_decay=0.1)
    adamw = torch.optim.AdamW(
        theirs.values(), lr=0.01, betas=BETAS, eps=EPSILON, weight_decay=0.1, fused=True
    )
    for _ in range(3):
        for name, parameter in ours.items():
            gradient = torch.randn(parameter.shape, generator=random).to(dtype)
            (parameter * gradient).sum().backward()
            theirs[name].grad = gradient.float()
        torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)
        adamw.step()
        assert weights.step(0.01, max_grad_norm=1.0) > 1.0
    kept = weights.state()
    for name, wanted in theirs.items():
        lower = kept.get(f"lower/{name}")
        found = ours[name] if lower is None else joined(ours[name].detach(), lower)
        torch.testing.assert_close(found.data, wanted.data, rtol=1e-6, atol=1e-7)
        assert kept[f"step/{name}"].item() == 3.0


def test_updates_too_small_for_bf16_are_not_lost():
    # Around 1, bf16 has steps of 1/128: an update of 1e-3 rounds away, 16 of them do not.
    parameter = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    weights = MasterWeights({"w": parameter}, weight_decay=0.0)
    for _ in range(16):
        parameter.sum().backward()
        weights.step(1e-3, max_grad_norm=1e9)  # AdamW's step with a steady slope is the rate
    assert master(weights).item() == pytest.approx(1 - 16e-3, abs=1e-4)
    assert parameter.item() == torch.tensor(1 - 16e-3).bfloat16().item()


def test_gradients_of_microbatches_add_up_in_fp32():
    # 256 + 1 is 256 in bf16; in fp32 it is 257.
    parameter = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    weights = MasterWeights({"w": parameter}, weight_decay=0.0)
    for slope in (256.0, 1.0):
        (slope * parameter).sum().backward()
    assert weights.sums["w"].item() == 257.0
    assert parameter.grad is None


def test_one_step_leaves_no_gradient_for_the_next():
    parameter = nn.Parameter(torch.ones(1))
    weights = MasterWeights({"w": parameter}, weight_decay=0.0)
    parameter.sum().backward()
    weights.step(0.1, 1.0)
    (3 * parameter).sum().backward()
    assert weights.sums["w"].item() == 3.0
    weights.step(0.1, 1.0)
    assert not weights.sums
    assert weights.step(0.1, 1.0) == 0.0  # a step that brings none


def test_a_gradient_that_is_not_finite_changes_nothing_and_names_the_knob_in_one_line():
    parameter = nn.Parameter(torch.ones(1))
    weights = MasterWeights({"w": parameter}, weight_decay=0.0)
    (parameter * float("inf")).sum().backward()
    with pytest.raises(ModelError, match=r"not finite.*lower fit\.learning-rate\.$"):
        weights.step(0.1, 1.0)
    assert parameter.item() == 1.0


def test_restored_weights_go_on_as_if_nothing_had_happened():
    def trained(weights: MasterWeights, parameter: nn.Parameter, slopes: list[float]) -> None:
        for slope in slopes:
            (slope * parameter.square().sum()).backward()
            weights.step(0.01, 1.0)

    first = nn.Parameter(torch.tensor([1.0, 2.0]).bfloat16())
    unbroken = MasterWeights({"w": first}, weight_decay=0.1)
    trained(unbroken, first, [1.0, -1.0])
    kept = {name: tensor.clone() for name, tensor in unbroken.state().items()}
    trained(unbroken, first, [2.0, 0.5])

    second = nn.Parameter(torch.tensor([9.0, 9.0]).bfloat16())
    resumed = MasterWeights({"w": second}, weight_decay=0.1)
    resumed.restore(kept)
    trained(resumed, second, [2.0, 0.5])
    assert torch.equal(first, second)
    assert torch.equal(master(unbroken), master(resumed))
