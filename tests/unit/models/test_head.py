"""Log-probabilities and their gradients, against the plain formula in fp64 and autograd."""

import pytest
import torch
from torch import Tensor

from amenable.chat.encode import TokenRow
from amenable.chat.trees import Pack, TokenTree
from amenable.models.head import CHUNK_ROWS, scored_log_probs

VOCABULARY, WIDTH = 40, 8


def plainly(hidden: Tensor, weight: Tensor, targets: Tensor, ids: Tensor, rows: Tensor) -> Tensor:
    """The definition: the frozen head with some rows replaced, and one log-softmax."""
    whole = weight.index_copy(0, ids, rows)
    return (hidden @ whole.T).log_softmax(-1).gather(-1, targets[:, None])[:, 0]


def made_up(num_rows: int, marker_ids: list[int], dtype: torch.dtype) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(num_rows)
    hidden = torch.randn(num_rows, WIDTH, generator=draw, dtype=torch.float64)
    weight = torch.randn(VOCABULARY, WIDTH, generator=draw, dtype=torch.float64)
    targets = torch.randint(0, VOCABULARY, (num_rows,), generator=draw)
    targets[: len(marker_ids)] = torch.tensor(marker_ids)[:num_rows]
    rows = torch.randn(len(marker_ids), WIDTH, generator=draw, dtype=torch.float64)
    ids = torch.tensor(marker_ids, dtype=torch.int64)
    return hidden.to(dtype), weight.to(dtype), targets, ids, rows.to(dtype)


@pytest.mark.parametrize("marker_ids", [[], [3], [3, 0, 39]], ids=["none", "one", "three"])
@pytest.mark.parametrize("num_rows", [3, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 400])
def test_values_and_gradients_are_those_of_the_definition(num_rows: int, marker_ids: list[int]):
    hidden, weight, targets, ids, rows = made_up(num_rows, marker_ids, torch.float32)
    exact_hidden = hidden.double().requires_grad_()
    exact_rows = rows.double().requires_grad_()
    exact = plainly(exact_hidden, weight.double(), targets, ids, exact_rows)
    # Every row gets another weight, so that a gradient in the wrong row shows.
    share = torch.linspace(-1, 2, num_rows)
    (exact * share.double()).sum().backward()

    hidden.requires_grad_()
    rows.requires_grad_()
    ours = scored_log_probs(hidden, weight, targets, ids, rows)
    (ours * share).sum().backward()

    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=1e-5)
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad.double(), exact_hidden.grad, rtol=1e-4, atol=1e-5)
    if marker_ids:
        assert rows.grad is not None
        torch.testing.assert_close(rows.grad.double(), exact_rows.grad, rtol=1e-4, atol=1e-4)


def test_nothing_to_score_gives_nothing_and_zero_gradients():
    hidden, weight, targets, ids, rows = made_up(0, [], torch.float32)
    hidden.requires_grad_()
    scored = scored_log_probs(hidden, weight, targets, ids, rows)
    scored.sum().backward()
    assert scored.shape == (0,)
    assert hidden.grad is not None
    assert hidden.grad.shape == (0, WIDTH)


def test_nothing_to_score_gives_marker_rows_a_zero_gradient():
    hidden, weight, _, ids, _ = made_up(0, [], torch.float32)
    rows = torch.ones(1, WIDTH, requires_grad=True)
    ids = torch.tensor([3])
    scored_log_probs(hidden, weight, torch.empty(0, dtype=torch.int64), ids, rows).sum().backward()
    assert rows.grad is not None
    assert not rows.grad.any()


def test_large_logits_overflow_nowhere():
    hidden = torch.full((1, WIDTH), 100.0)
    weight = torch.zeros(VOCABULARY, WIDTH)
    weight[5] = 1.0  # logit 800, all others 0: p is 1 to the last digit
    scored = scored_log_probs(
        hidden.expand(2, -1), weight, torch.tensor([5, 6]), torch.empty(0).long(), weight[:0]
    )
    assert scored.tolist() == [0.0, -800.0]


def test_bf16_stays_near_fp32():
    hidden, weight, targets, ids, rows = made_up(50, [3], torch.bfloat16)
    exact = plainly(hidden.double(), weight.double(), targets, ids, rows.double())
    ours = scored_log_probs(hidden, weight, targets, ids, rows)
    assert ours.dtype == torch.float32
    # bf16 keeps 8 bits: a logit of about 8 is off by at most 8 / 256.
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=0.08)


def test_without_gradients_the_value_is_the_same():
    hidden, weight, targets, ids, rows = made_up(20, [3], torch.float32)
    with_gradients = scored_log_probs(hidden, weight, targets, ids, rows.requires_grad_())
    with torch.no_grad():
        without = scored_log_probs(hidden, weight, targets, ids, rows)
    assert torch.equal(with_gradients.detach(), without)
    assert not without.requires_grad


def test_the_loss_moves_with_the_position_before_the_target_only():
    """Off by one, by finite differences: three tokens, the loss on the last one alone.

    The state at position 1 predicts the token at position 2; moving any other state by h changes
    nothing, and moving that one changes the loss by h times the gradient.
    """
    _, weight, _, ids, rows = made_up(1, [], torch.float64)
    pack = Pack.of([TokenTree.of(TokenRow([1, 2, 3], [False, False, True]))])
    hidden_NH = torch.randn(
        3, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )

    def loss(hidden: Tensor) -> Tensor:
        return -plainly(hidden[pack.sources_R], weight, pack.targets_R, ids, rows).sum()

    step = 1e-6
    slopes = torch.zeros(3, WIDTH, dtype=torch.float64)
    for t in range(3):
        for h in range(WIDTH):
            moved = hidden_NH.clone()
            moved[t, h] += step
            slopes[t, h] = (loss(moved) - loss(hidden_NH)) / step
    assert not slopes[0].any()
    assert not slopes[2].any()

    ours = hidden_NH.float().requires_grad_()
    hidden_RH, targets = ours[pack.sources_R], pack.targets_R
    (-scored_log_probs(hidden_RH, weight.float(), targets, ids, rows.float())).sum().backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad.double(), slopes, rtol=1e-3, atol=1e-4)
