"""Embedding and head trained whole, against autograd through one network and its full logits."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tests.tiny import Family, rows_pack, tiny_policy

from amenable.models.head import BLOCK_TOKENS
from amenable.records.errors import ModelError
from amenable.training.optimizer import MasterWeights

KINDS: list[tuple[Family, bool]] = [("gemma", True), ("llama3", True), ("chatml", False)]
TOKENS = torch.tensor([[2, 4, 20, 21, 9, 30], [2, 4, 20, 9, 41, 42]])


@pytest.mark.parametrize(("family", "tied"), KINDS)
@pytest.mark.parametrize("block", [BLOCK_TOKENS, 7])
def test_every_weight_gets_the_gradient_that_autograd_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: Family, tied: bool, block: int
):
    monkeypatch.setattr("amenable.models.head.BLOCK_TOKENS", block)
    policy = tiny_policy(tmp_path / "base", family, tied=tied)
    policy.adapters.add_markers_only("all", ())
    weights = MasterWeights.of(policy, "all", "full", weight_decay=0.0)
    for _ in range(2):  # sums of two batches
        (policy.scored(rows_pack(TOKENS)) * torch.linspace(-1, 2, 10)).sum().backward()

    theirs = cast("Any", tiny_policy(tmp_path / "base", family, tied=tied)).network
    theirs.requires_grad_(True)
    logits = theirs(input_ids=TOKENS).logits[:, :-1].log_softmax(-1)
    picked = logits.gather(-1, TOKENS[:, 1:, None]).flatten()
    (2 * picked * torch.linspace(-1, 2, 10)).sum().backward()
    expected = {path: each.grad for path, each in theirs.named_parameters()}
    assert weights.sums.keys() == expected.keys()
    for path, gradient in expected.items():
        size = float(gradient.abs().max())
        torch.testing.assert_close(weights.sums[path], gradient, rtol=1e-4, atol=1e-5 * size)


def test_gradients_are_cleared_in_place(tmp_path: Path):
    """The sums are handed out once; a step must not leave them behind."""
    policy = tiny_policy(tmp_path / "base")
    policy.adapters.add_markers_only("all", ())
    weights = MasterWeights.of(policy, "all", "full", weight_decay=0.0)
    path = "model.embed_tokens.weight"
    for _ in range(2):
        (-policy.scored(rows_pack(TOKENS))).sum().backward()
        assert weights.sums[path].any()
        weights.step(1e-3, max_grad_norm=1.0)
        assert not weights.sums[path].any()


def test_half_a_vocabulary_is_refused(tmp_path: Path):
    policy = tiny_policy(tmp_path / "base", "chatml", tied=False)
    with pytest.raises(ModelError, match="together"):
        policy.vocabulary.collect_into({"lm_head.weight": torch.zeros(1)})
