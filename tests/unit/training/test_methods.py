"""What the ways of training feed to their losses, on a tiny model."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import tiny_policy

from amenable.chat.encode import TokenRow
from amenable.chat.trees import TokenTree
from amenable.models.adapters import AdapterShape
from amenable.models.policy import Policy
from amenable.models.reward_model import RewardModel
from amenable.training.finetune import Budget, LikelihoodMethod
from amenable.training.losses.preference import PreferenceKnobs
from amenable.training.preference import (
    PreferenceMethod,
    RowPair,
    branch_log_probs,
    pair_trees,
    tree_steps,
)
from amenable.training.reference_cache import Reference, read_reference, reference_key
from amenable.training.reward import Judged, Order, RewardMethod, scores_of

BUDGET = Budget(per_pack=24, per_step=40)
DPO = PreferenceKnobs("dpo", beta=0.1, margin=0.0, flips="conservative", sft_weight=0.0)


def row(start: int, prompt: int, reply: int) -> TokenRow:
    tokens = [2, *range(start, start + prompt + reply)]
    return TokenRow(tokens, [False] * (1 + prompt) + [True] * reply)


ROWS = [row(20, 3, 4), row(60, 5, 2), row(90, 2, 6), row(130, 1, 1)]
PAIRS = [RowPair(row(20, 3, 4), row(20, 3, 2)), RowPair(row(70, 2, 1), row(70, 2, 5))]
TREES = pair_trees(PAIRS)


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    policy = tiny_policy(tmp_path / "base")
    policy.adapters.add("a", AdapterShape(rank=2, alpha=4.0, marker_ids=(4, 5)), seed=1)
    return policy


def alone(policy: Policy, one: TokenRow) -> float:
    """The sum over a row's targets by transformers itself, one row at a time."""
    tokens = torch.tensor([one.tokens])
    policy.adapters.use(None)  # the adapter says nothing yet
    with torch.no_grad():
        scores = policy.network(input_ids=tokens).logits[0, :-1].log_softmax(-1)
    policy.adapters.use("a")
    picked = scores.gather(-1, tokens[0, 1:, None])[:, 0]
    return float(picked[torch.tensor(one.is_target[1:])].sum())


def test_the_finetuning_loss_is_the_mean_over_reply_tokens(policy: Policy):
    method = LikelihoodMethod(policy, ROWS, BUDGET, seed=1)
    counts = method.counts([[0, 1], [2, 3]])
    assert counts == 4 + 2 + 6 + 1
    total = sum(float(method.loss(batch, counts).total.detach()) for batch in ([0, 1], [2, 3]))
    assert total == pytest.approx(-sum(alone(policy, each) for each in ROWS) / 13, rel=1e-5)


def test_tokens_of_a_microbatch_are_counted_without_padding(policy: Policy):
    assert LikelihoodMethod(policy, ROWS, BUDGET, seed=1).num_tokens([0, 3]) == 8 + 3
    method = PreferenceMethod(policy, PAIRS, torch.zeros(2, 2), DPO, BUDGET, 1)
    # The begin token and the prompt once; a branch keeps a token, so the shorter reply is not all
    # prefix: 4 shared, then 4 and 2 of their own.
    assert method.num_tokens([0]) == 4 + 4 + 2


def test_epochs_differ_and_runs_with_one_seed_do_not(policy: Policy):
    rows = [row(20 + at, 3, 4) for at in range(30)]
    first = LikelihoodMethod(policy, rows, BUDGET, seed=1)
    assert first.steps(0) != first.steps(1)
    assert first.steps(1) == LikelihoodMethod(policy, rows, BUDGET, seed=1).steps(1)
    assert first.steps(0) != LikelihoodMethod(policy, rows, BUDGET, seed=2).steps(0)


def test_pairs_are_summed_each_on_its_own(policy: Policy):
    found_K = branch_log_probs(policy, TREES)
    expected = [alone(policy, one) for pair in PAIRS for one in (pair.chosen, pair.rejected)]
    torch.testing.assert_close(found_K, torch.tensor(expected), rtol=1e-5, atol=1e-4)


def test_the_first_step_against_oneself_costs_ln_2(policy: Policy, tmp_path: Path):
    groups = [batch for step in tree_steps(TREES, BUDGET, 1) for batch in step]
    reference = read_reference(policy, TREES, groups, tmp_path / "cache", lambda _: None)
    method = PreferenceMethod(policy, PAIRS, reference.log_probs_TK, DPO, BUDGET, seed=1)
    counts = method.counts(groups)
    assert (counts.weight, counts.chosen_tokens) == (2, 4 + 1)
    total = sum(float(method.loss(group, counts).total.detach()) for group in groups)
    assert total == pytest.approx(math.log(2), abs=1e-6)


def reference_of(policy: Policy, cache: Path) -> tuple[Reference, list[int]]:
    heard: list[int] = []
    return read_reference(policy, TREES, [[1], [0]], cache, heard.append), heard


def same(first: Reference, second: Reference) -> bool:
    return all(torch.equal(*each) for each in zip(first, second, strict=True))


def test_reference_values_are_computed_once(policy: Policy, tmp_path: Path):
    first, heard = reference_of(policy, tmp_path / "room" / "cache")
    assert heard == [1, 2]
    again, heard = reference_of(policy, tmp_path / "room" / "cache")
    assert heard == []
    assert same(first, again)
    assert not any(each.requires_grad for each in first)


def test_how_far_apart_two_replies_lie_for_the_parent(policy: Policy, tmp_path: Path):
    """Worked from the hidden states that transformers gives each row by itself."""
    means: list[torch.Tensor] = []
    policy.adapters.use(None)
    for one in (one for pair in PAIRS for one in pair.rows):
        with torch.no_grad():
            hidden_TH = policy.backbone(torch.tensor([one.tokens]))[0][0]
        means.append(hidden_TH[:-1][torch.tensor(one.is_target[1:])].mean(0))
    policy.adapters.use("a")
    usual = float((means[0] - means[2]).norm() / math.sqrt(2))  # of two, each with each and itself
    wanted = [float((means[at] - means[at + 1]).norm()) / usual for at in (0, 2)]
    found, _ = reference_of(policy, tmp_path / "cache")
    assert found.apart_T.tolist() == pytest.approx(wanted, rel=1e-4)


def test_replies_of_the_same_words_do_not_lie_apart(policy: Policy, tmp_path: Path):
    same_words = RowPair(row(20, 3, 4), row(20, 3, 4))
    trees = pair_trees([same_words, PAIRS[1]])
    found = read_reference(policy, trees, [[0, 1]], tmp_path / "cache", lambda _: None)
    assert found.apart_T[0] < 1e-5 < found.apart_T[1]


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "other pairs", "unsigned"])
def test_damaged_reference_values_are_computed_anew(policy: Policy, tmp_path: Path, damage: str):
    cache = tmp_path / "cache"
    first, _ = reference_of(policy, cache)
    whole = bytearray(cache.read_bytes())
    if damage == "bit":
        whole[-3] ^= 4
        cache.write_bytes(whole)
    if damage == "cut":
        cache.write_bytes(whole[:-1])
    if damage == "empty":
        cache.write_bytes(b"")
    if damage == "other pairs":
        save_file(Reference(torch.zeros(5, 2), torch.zeros(5))._asdict(), cache)
    if damage == "unsigned":
        save_file(Reference(torch.zeros(2, 2), torch.zeros(2))._asdict(), cache)
    again, heard = reference_of(policy, cache)
    assert heard == [1, 2]
    assert same(first, again)
    assert same(first, Reference(**load_file(cache)))


def test_other_pairs_parents_or_precisions_have_other_references():
    keys = {
        reference_key("a", TREES, torch.float32),
        reference_key("b", TREES, torch.float32),
        reference_key("a", TREES[:1], torch.float32),
        reference_key(
            "a", [TokenTree.of(PAIRS[0].rejected, PAIRS[0].chosen), TREES[1]], torch.float32
        ),
        reference_key("a", TREES, torch.bfloat16),
    }
    assert len(keys) == 5


def test_a_step_that_no_head_meets_moves_nothing_instead_of_dividing_by_it(policy: Policy):
    """Two heads both miss a judgement with a chance of 0.37 squared."""
    judged = [Judged.of(ROWS[:2], [Order(0, 1)])]
    model = RewardModel.on(policy, 2, seed=2)
    losses: list[float] = []
    for seed in range(20):
        method = RewardMethod(model, judged, 0.01, BUDGET, seed)
        losses.append(method.loss([0], method.counts([[0]])).total.item())
    assert all(math.isfinite(loss) for loss in losses)
    assert 0.0 in losses
    assert any(loss > 0.1 for loss in losses)


def test_scores_stand_by_their_tree_whatever_pack_they_were_read_in(policy: Policy):
    model = RewardModel.on(policy, 2, seed=2)
    trees = [TokenTree.of(*ROWS[:2]), TokenTree.of(*ROWS[1:]), TokenTree.of(ROWS[0], ROWS[3])]
    heard: list[int] = []
    together = scores_of(model, trees, [[2, 0], [1]], heard.append)
    apart = scores_of(model, trees, [[0], [1], [2]], heard.append)
    assert [each.shape for each in together] == [(2, 2), (2, 3), (2, 2)]
    assert heard == [1, 2, 1, 2, 3]
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other)
