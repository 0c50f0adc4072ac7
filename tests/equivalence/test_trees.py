"""One prompt and many replies in one pass give what every reply gives by itself, by family."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import FAMILIES, Family, shake, tiny_policy
from torch import Tensor

from amenable.chat.encode import TokenRow
from amenable.chat.trees import Pack, Span, TokenTree
from amenable.models.adapters import AdapterShape
from amenable.models.policy import Policy
from amenable.models.tree_attention import OTHERS, reads_trees, tree_attention
from amenable.records.errors import ModelError

WINDOW = 16  # of the tiny Gemma; prefixes and branches are longer and shorter than that


@cache
def learner(family: Family) -> Policy:
    policy = tiny_policy(Path(mkdtemp()) / "base", family)
    ids = policy.encoder(family).marker_ids
    policy.adapters.add("a", AdapterShape(rank=2, alpha=4.0, marker_ids=ids), seed=1)
    shake(policy, "a", 3, size=0.05)
    for parameter in policy.adapters.parameters("a").values():
        parameter.requires_grad_(True)
    return policy


@st.composite
def trees(draw: st.DrawFn) -> TokenTree:
    prefix = draw(st.lists(st.integers(10, 90), min_size=1, max_size=3 * WINDOW))
    num = draw(st.integers(1, 4))
    branch = st.lists(st.integers(10, 90), min_size=1, max_size=2 * WINDOW)
    branches = tuple(
        TokenRow(tokens, [draw(st.booleans()) for _ in tokens])
        for tokens in (draw(branch) for _ in range(num))
    )
    return TokenTree(prefix, branches)


def textbook(policy: Policy, tree: TokenTree) -> list[Tensor]:
    """Every branch with its prefix as a sequence of its own, the whole vocabulary, no shortcut."""
    found: list[Tensor] = []
    for branch in tree.branches:
        ids = torch.tensor([tree.prefix + branch.tokens])
        row = TokenTree([], (TokenRow(ids[0].tolist(), [False] + [True] * (ids.shape[1] - 1)),))
        hidden_TH = policy.hidden_apart(Pack.of([row]))
        logits_TV = hidden_TH[:-1] @ policy.head_weight.T
        marked, rows_MH = policy.adapters.active_markers()
        logits_TV = logits_TV.index_copy(1, marked, hidden_TH[:-1] @ rows_MH.T)
        log_probs_T = logits_TV.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        is_target = torch.tensor(branch.is_target)
        found.append(log_probs_T[len(tree.prefix) - 1 :][is_target])
    return found


def gradients(policy: Policy, loss: Tensor) -> Tensor:
    parameters = list(policy.adapters.parameters("a").values())
    found = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return torch.cat([each.flatten() for each in found])


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=15)
@given(st.data())
def test_a_pack_of_trees_against_sequences_apart(family: Family, data: st.DataObject):
    policy = learner(family)
    assert reads_trees(policy.network)
    forest = data.draw(st.lists(trees(), min_size=1, max_size=3))
    ours_R = policy.scored(Pack.of(forest))
    theirs_R = torch.cat([each for tree in forest for each in textbook(policy, tree)])
    torch.testing.assert_close(ours_R, theirs_R, rtol=0, atol=1e-4)
    if len(ours_R):
        weights_R = torch.linspace(-1.0, 2.0, len(ours_R))
        ours, theirs = (gradients(policy, (weights_R * each).sum()) for each in (ours_R, theirs_R))
        assert float(torch.cosine_similarity(ours, theirs, dim=0)) > 0.999999
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", OTHERS)
def test_an_attention_with_more_to_it_is_refused_before_it_is_left_out(name: str):
    states = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ModelError, match=name):
        tree_attention(
            torch.nn.Module(), states, states, states, None, spans=[Span(0, (2,))], **{name: 1.0}
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tree_never_looks_at_its_neighbours(family: Family):
    """Another document in the pack, another sibling: not one number of this branch changes."""
    policy = learner(family)
    mine = TokenRow([20, 21, 22], [True] * 3)
    others = [TokenRow([30, 31], [True] * 2), TokenRow([40, 41], [True] * 2)]
    first, second = (
        policy.scored(Pack.of([TokenTree([2, 5], (other,)), TokenTree([2, 7, 8], (other, mine))]))[
            -3:
        ]
        for other in others
    )
    assert torch.equal(first, second)
