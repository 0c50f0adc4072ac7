"""The kernel for GPUs, unfused on a processor, sees and gives what the trees one by one do."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.chat.trees import Span
from amenable.models.flex_trees import block_mask, flex_tree_attention
from amenable.models.tree_attention import attend_by_tree

FORESTS = [
    (Span(0, (9,)),),
    (Span(7, (3, 5)), Span(0, (4,)), Span(130, (40, 1, 20))),
]
spans = st.builds(
    Span, st.integers(0, 6), st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)
)


def textbook(forest: tuple[Span, ...], window: int | None) -> torch.Tensor:
    """Which token sees which [N, N], from each token's path: where in the pack its past stands."""
    paths: list[list[int]] = []
    for prefix, branches in forest:
        start = len(paths)
        paths += [list(range(start, start + at + 1)) for at in range(prefix)]
        shared = list(range(start, start + prefix))
        for length in branches:
            first = len(paths)
            paths += [[*shared, *range(first, first + at + 1)] for at in range(length)]
    is_seen = torch.zeros(len(paths), len(paths), dtype=torch.bool)
    for at, path in enumerate(paths):
        is_seen[at, path[-window:] if window else path] = True
    return is_seen


@given(st.lists(spans, min_size=1, max_size=3).map(tuple), st.sampled_from([None, 1, 3]))
def test_a_token_sees_its_past_and_nothing_else(forest: tuple[Span, ...], window: int | None):
    wanted = textbook(forest, window)
    at = torch.arange(len(wanted))
    nought = torch.zeros((), dtype=torch.int64)
    mask = block_mask(forest, window, torch.device("cpu"))
    assert torch.equal(mask.mask_mod(nought, nought, at[:, None], at[None]), wanted)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("forest", FORESTS)
def test_the_kernel_gives_what_the_trees_one_by_one_do(
    forest: tuple[Span, ...], window: int | None
):
    random = torch.Generator().manual_seed(3)
    length = sum(prefix + sum(branches) for prefix, branches in forest)
    query, key, value = (torch.randn(1, heads, length, 16, generator=random) for heads in (4, 2, 2))
    arguments = (query, key, value, forest, 0.3, window)
    with torch.no_grad():
        torch.testing.assert_close(
            flex_tree_attention(*arguments), attend_by_tree(*arguments), rtol=0, atol=1e-5
        )
