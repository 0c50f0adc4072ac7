"""Our side: the methods and the update that `amenable` trains with, fed with fixed steps."""

import os
import sys
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read when torch is imported

import torch
from safetensors.torch import load_file, save_file

from amenable.chat.encode import TokenRow
from amenable.chat.packing import fill
from amenable.chat.trees import TokenTree
from amenable.models.policy import Policy
from amenable.models.reward_model import RewardModel
from amenable.training.finetune import Budget, LikelihoodMethod
from amenable.training.losses.output import LossOutput
from amenable.training.losses.preference import PreferenceKnobs
from amenable.training.optimizer import MasterWeights
from amenable.training.preference import PreferenceMethod, RowPair, pair_trees
from amenable.training.reference_cache import read_reference
from amenable.training.reward import Judged, RewardMethod, orders_of_ranking
from amenable.training.step import Method, Update
from amenable.training.unpaired import JudgedRow, UnpairedMethod, judged_trees
from benchmarks.training.workers.gradients import sampled
from benchmarks.training.workers.protocol import Turns, digest, read_spec
from benchmarks.training.workload import Example, Workload

NAME = "learner"
TOKENS_PER_PACK = 2048
NO_STEP_LIMIT = 10**9


class Watched:
    """A method whose losses are written down as they are computed."""

    def __init__(self, method: Method[Any]) -> None:
        self._method = method
        self.loss_of_step = 0.0

    def steps(self, epoch: int) -> list[list[list[int]]]:
        return self._method.steps(epoch)

    def counts(self, step: Sequence[Sequence[int]]) -> Any:
        self.loss_of_step = 0.0
        return self._method.counts(step)

    def loss(self, microbatch: Sequence[int], counts: Any) -> LossOutput:
        output = self._method.loss(microbatch, counts)
        self.loss_of_step += float(output.total.detach())
        return output

    def num_tokens(self, microbatch: Sequence[int]) -> int:
        return self._method.num_tokens(microbatch)


def main() -> None:
    turns, spec = Turns(), read_spec()
    torch.set_num_threads(spec["num_threads"])
    workload = Workload.read(Path(spec["workload"]))
    policy = Policy.load(Path(spec["model"]), torch.float32 if spec["is_exact"] else None)
    policy.adapters.add_markers_only(NAME, ())
    side = _side(spec, policy, workload)
    watched = Watched(side.method)
    weights = side.weights
    update = Update(watched, weights)
    turns.ready(version="this checkout", num_parameters=policy.num_parameters)
    places = range(len(workload.examples))
    steps = [places[start : start + workload.per_step] for start in places[:: workload.per_step]]
    for number, at in enumerate(cycle(steps)):
        turns.before_step()
        packs = fill([side.lengths[each] for each in at], TOKENS_PER_PACK)
        step = [[at[each] for each in pack] for pack in packs]
        if number == 0:
            _keep_gradients(watched, weights, step, spec)
        update.take(step, spec["learning_rate"], spec["max_grad_norm"])
        examples = [workload.examples[each] for each in at]
        turns.after_step(watched.loss_of_step, digest(_read_by(examples, spec["method"])))


class Side:
    """A method on a row's examples, and the weights that it trains."""

    def __init__(self, method: Method[Any], weights: MasterWeights, lengths: list[int]) -> None:
        self.method, self.weights, self.lengths = method, weights, lengths


def _side(spec: dict[str, Any], policy: Policy, workload: Workload) -> Side:
    examples = workload.examples
    rows = [[_row(each, reply) for reply in each.replies] for each in examples]
    budget = Budget(TOKENS_PER_PACK, NO_STEP_LIMIT)
    if spec["method"] == "reward":
        return _reward(spec, policy, rows, budget)
    method: Method[Any]
    if spec["method"] == "finetune":
        method = LikelihoodMethod(policy, [row for (row,) in rows], budget, 0)
    elif spec["method"] == "kto":
        method = _unpaired(spec, policy, workload, budget)
    else:
        pairs = [RowPair(chosen, rejected) for chosen, rejected in rows]
        method = _preference(spec, policy, pairs, budget)
    lengths = [TokenTree.of(*each).num_tokens for each in rows]
    return Side(method, MasterWeights.of(policy, NAME, "full", 0.0), lengths)


def _preference(
    spec: dict[str, Any], policy: Policy, pairs: list[RowPair], budget: Budget
) -> PreferenceMethod:
    trees = pair_trees(pairs)
    form = spec["method"]
    knobs = PreferenceKnobs(
        form=form,
        beta=0.1,
        margin=0.0,
        flips="conservative",
        sft_weight=1.0 if form == "orpo" else 0.0,
    )
    reference_P2 = torch.zeros(len(pairs), 2)
    if form == "dpo":
        packs = fill([tree.num_tokens for tree in trees], budget.per_pack)
        reference = read_reference(policy, trees, packs, Path(spec["reference"]), _unheard)
        reference_P2 = reference.log_probs_TK
    return PreferenceMethod(policy, pairs, reference_P2, knobs, budget, 0)


def _unpaired(
    spec: dict[str, Any], policy: Policy, workload: Workload, budget: Budget
) -> UnpairedMethod:
    judged: list[JudgedRow] = []
    for step in workload.steps():
        # The reply before it in the step, as the peer takes it.
        for each, other in zip(step, [step[-1], *step[:-1]], strict=True):
            stranger = _row(each, other.replies[0])
            judged.append(JudgedRow(_row(each, each.replies[0]), stranger, each.is_good))
    trees = judged_trees(judged)
    packs = fill([tree.num_tokens for tree in trees], budget.per_pack)
    reference = read_reference(policy, trees, packs, Path(spec["reference"]), _unheard)
    return UnpairedMethod(policy, judged, reference.log_probs_TK, 0.1, budget, 0)


def _reward(
    spec: dict[str, Any], policy: Policy, rows: list[list[TokenRow]], budget: Budget
) -> Side:
    model = RewardModel.on(policy, 1, 0)
    with torch.no_grad():
        model.heads_EH.copy_(load_file(spec["head"])["score"])
    judged = [Judged.of(replies, orders_of_ranking(range(len(replies)))) for replies in rows]
    method = RewardMethod(model, judged, 0.0, budget, 0)
    # The peers train the embedding too.
    parameters = {**policy.trained_parameters(NAME, "full"), "score.weight": model.heads_EH}
    weights = MasterWeights(parameters, 0.0)
    policy.vocabulary.collect_into(weights.lasting_sums(policy.vocabulary.parameters()))
    return Side(method, weights, [each.tree.num_tokens for each in judged])


def _unheard(done: int) -> None:
    """Nobody watches the reference being read."""


def _row(example: Example, reply: list[int]) -> TokenRow:
    is_target = [False] * len(example.prompt) + [True] * len(reply)
    return TokenRow([*example.prompt, *reply], is_target)


def _read_by(
    examples: Sequence[Example], method: str
) -> list[tuple[Sequence[int], Sequence[bool]]]:
    """The sequences that a step scores, as its peers name them too."""
    rows = [_row(each, reply) for each in examples for reply in each.replies]
    if method == "reward":
        return [(row.tokens, [False] * (len(row.tokens) - 1) + [True]) for row in rows]
    return [(row.tokens, row.is_target) for row in rows]


def _keep_gradients(
    method: Watched, weights: MasterWeights, step: list[list[int]], spec: dict[str, Any]
) -> None:
    """Of the first step, before anything has changed; the step itself is taken afterwards."""
    counts = method.counts(step)
    for microbatch in step:
        method.loss(microbatch, counts).total.backward()
    save_file(sampled(weights.sums), spec["gradients"])
    weights.forget()


if __name__ == "__main__":
    sys.exit(main())
