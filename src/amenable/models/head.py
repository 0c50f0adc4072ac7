"""The vocabulary head on scored rows only: log-probabilities with their gradient, row by row.

The head is most of a small model's arithmetic, so it is computed for the rows that a loss looks
at and nowhere else, in chunks of rows, each with the whole vocabulary (so that no partial sum is
rounded), with fp32 statistics. The head's weights are frozen but for the marker rows; then

    d log p(y) / dh = w_y - sum_v p(v) w_v

is formed in the same pass (4 FLOPs per head weight and row), and backward is one multiplication.
Where the head is trained too, the one-hot minus p of every row is kept, and backward adds

    d log p(y) / dw_v = ([v = y] - p(v)) h

times what comes from above to sums in fp32 (2 FLOPs more), a block of the vocabulary at a time.
"""

# Shapes: R = scored rows, H = hidden width, V = vocabulary, M = marker rows.

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

CHUNK_ROWS = 384
BLOCK_NUMBERS = 2 << 20
BLOCK_TOKENS = 8192


def apply_markers(logits_RV: Tensor, hidden_RH: Tensor, ids_M: Tensor, rows_MH: Tensor) -> None:
    """Put the trained rows' logits in the place of the frozen ones."""
    logits_RV[:, ids_M] = (hidden_RH @ rows_MH.T).to(logits_RV.dtype)


def _log_probs(logits_rV: Tensor, targets_r: Tensor, *, leaves_slope: bool) -> Tensor:
    """fp32 log-probabilities of the targets; may leave one-hot minus softmax in the logits' place.

    In fp32 a few rows at a time: a block that stays in the processor's cache is seven times as
    fast as the whole chunk, which is 200 MB wide for Gemma (docs/experiments.md).
    """
    num_rows, width = logits_rV.shape
    block = max(1, BLOCK_NUMBERS // width) if logits_rV.device.type == "cpu" else num_rows
    log_probs_r = logits_rV.new_empty(num_rows, dtype=torch.float32)
    for start in range(0, num_rows, block):
        here = slice(start, start + block)
        scores_bV = logits_rV[here].to(torch.float32, copy=True)
        targets_b1 = targets_r[here, None]
        top_b1 = scores_bV.amax(-1, keepdim=True)
        target_b1 = scores_bV.gather(-1, targets_b1) - top_b1
        weights_bV = scores_bV.sub_(top_b1).exp_()
        sum_b1 = weights_bV.sum(-1, keepdim=True)
        log_probs_r[here] = (target_b1 - sum_b1.log())[:, 0]
        if leaves_slope:
            slope_bV = weights_bV.div_(sum_b1.neg_())
            slope_bV.scatter_add_(-1, targets_b1, torch.ones_like(sum_b1))
            logits_rV[here] = slope_bV  # back into the model's precision
    return log_probs_r


class _Asked(NamedTuple):
    """What autograd need not follow."""

    weight_VH: Tensor
    targets_R: Tensor
    ids_M: Tensor
    sums_VH: Tensor | None


class _ScoredLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_RH: Tensor, rows_MH: Tensor, asked: _Asked) -> Tensor:
        weight_VH, targets_R, ids_M, sums_VH = asked
        log_probs_R = hidden_RH.new_empty(len(hidden_RH), dtype=torch.float32)
        needs_grad = any(ctx.needs_input_grad)
        is_trained = needs_grad and sums_VH is not None
        slope_RV = hidden_RH.new_empty(len(hidden_RH), len(weight_VH)) if is_trained else None
        slope_RH = torch.empty_like(hidden_RH) if needs_grad else None
        marker_RM = hidden_RH.new_empty(len(hidden_RH), len(ids_M)) if needs_grad else None
        for start in range(0, len(hidden_RH), CHUNK_ROWS):
            here = slice(start, start + CHUNK_ROWS)
            room_rV = None if slope_RV is None else slope_RV[here]
            logits_rV = torch.mm(hidden_RH[here], weight_VH.T, out=room_rV)
            if len(ids_M):
                apply_markers(logits_rV, hidden_RH[here], ids_M, rows_MH)
            log_probs_R[here] = _log_probs(logits_rV, targets_R[here], leaves_slope=needs_grad)
            if slope_RH is not None and marker_RM is not None:
                grad_rV = logits_rV
                marker_RM[here] = grad_rV[:, ids_M]
                if len(ids_M):
                    grad_rV[:, ids_M] = 0
                slope_RH[here] = grad_rV @ weight_VH
                if len(ids_M):
                    slope_RH[here] += marker_RM[here] @ rows_MH
        if needs_grad:
            ctx.save_for_backward(slope_RH, marker_RM, hidden_RH)
            ctx.slope_RV, ctx.sums_VH = slope_RV, sums_VH
        return log_probs_R

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_R,) = grads
        slope_RH, marker_RM, hidden_RH = cast("tuple[Tensor, ...]", ctx.saved_tensors)
        scale_R1 = grad_R[:, None].to(slope_RH.dtype)
        rows_grad_MH = None
        if ctx.needs_input_grad[1]:
            rows_grad_MH = (marker_RM * scale_R1).T @ hidden_RH
        if ctx.slope_RV is not None:
            _add_outer(ctx.sums_VH, ctx.slope_RV, hidden_RH * scale_R1)
            ctx.slope_RV = None
        return slope_RH * scale_R1, rows_grad_MH, None


def _add_outer(sums_VH: Tensor, slope_RV: Tensor, scaled_RH: Tensor) -> None:
    """sums += slope^T @ scaled, in blocks that are added while they are in the cache."""
    for start in range(0, len(sums_VH), BLOCK_TOKENS):
        here = slice(start, start + BLOCK_TOKENS)
        sums_VH[here] += slope_RV[:, here].T @ scaled_RH


def scored_log_probs(
    hidden_RH: Tensor,
    weight_VH: Tensor,
    targets_R: Tensor,
    ids_M: Tensor,
    rows_MH: Tensor,
    sums_VH: Tensor | None = None,
) -> Tensor:
    """Log-probability of each row's target, in nats (fp32).

    Rows `ids_M` of `weight_VH` are replaced by `rows_MH`, which get gradients; the others are
    frozen, or get theirs in `sums_VH` (fp32). Not both: a head that is trained needs no markers.
    """
    assert sums_VH is None or not len(ids_M)
    if not torch.is_grad_enabled():
        # Inside the function it cannot be seen that nobody wants the slope, half of the work.
        hidden_RH, rows_MH = hidden_RH.detach(), rows_MH.detach()
    asked = _Asked(weight_VH, targets_R, ids_M, sums_VH)
    return cast("Tensor", _ScoredLogProbs.apply(hidden_RH, rows_MH, asked))
