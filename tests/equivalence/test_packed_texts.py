"""Texts that are packed together: each is learned from as if it were alone, by plain torch."""

from pathlib import Path

import pytest
import torch
from tests.tiny import FAMILIES, Family, tiny_policy
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from amenable.chat.encode import TokenRow
from amenable.chat.packing import windows
from amenable.chat.trees import Pack, TokenTree
from amenable.models.policy import Policy
from amenable.models.scratch import NetworkShape, learn_tokenizer, write_scratch
from amenable.starter.load import plain_texts
from amenable.training.finetune import Budget, LikelihoodMethod
from amenable.training.optimizer import BETAS, EPSILON, MasterWeights
from amenable.training.step import Update

TEXTS = [each.text for each in plain_texts()[:4]]


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_of_one_pack_do_not_see_each_other(tmp_path: Path, family: Family):
    """Whatever stands before a text in its pack, not a bit of it is predicted otherwise."""
    policy = tiny_policy(tmp_path / "base", family)
    encoder = policy.encoder("plain")
    one, *others = (encoder.text_row(text[:200]) for text in TEXTS)
    shuffled = TokenRow(list(reversed(others[0].tokens)), others[0].is_target)
    found = [
        policy.scored(Pack.of([TokenTree.of(first), TokenTree.of(one)]))[-sum(one.is_target) :]
        for first in (others[0], shuffled)
    ]
    alone = policy.scored(Pack.of([TokenTree.of(one)]))
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], alone, rtol=1e-5, atol=1e-5)


def test_steps_from_nothing_are_those_of_plain_torch(tmp_path: Path):
    """Packs, master weights and the head's own gradient against one text at a time and AdamW."""
    shape = NetworkShape(hidden=32, layers=2, heads=2, context=48)
    write_scratch(tmp_path, learn_tokenizer(TEXTS, 350), shape, seed=1)
    policy = Policy.load(tmp_path, torch.float32)
    encoder = policy.encoder("plain")
    rows = [piece for text in TEXTS for piece in windows(encoder.text_row(text), 48)]
    policy.adapters.add_markers_only("learner", ())
    method = LikelihoodMethod(policy, rows, Budget(per_pack=300, per_step=600), seed=1)
    update = Update(method, MasterWeights.of(policy, "learner", "full", 0.0))

    network = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    adamw = torch.optim.AdamW(
        network.parameters(), lr=1e-2, betas=BETAS, eps=EPSILON, weight_decay=0.0
    )
    for step in method.steps(0)[:4]:
        ours = update.take(step, 1e-2, max_grad_norm=1.0)["loss"]
        adamw.zero_grad()
        losses: list[torch.Tensor] = []
        for at in (at for pack in step for at in pack):
            ids = torch.tensor(rows[at].tokens)
            losses.append(
                cross_entropy(network(input_ids=ids[None]).logits[0, :-1], ids[1:], reduction="sum")
            )
        theirs = torch.stack(losses).sum() / method.counts(step)
        theirs.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adamw.step()
        assert ours == pytest.approx(float(theirs.detach()), rel=1e-4)
