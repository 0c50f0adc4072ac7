"""The stage that makes a reward model: a network that predicts which reply people choose."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from amenable.chat.packing import fill
from amenable.chat.template import chat_form
from amenable.chat.trees import TokenTree
from amenable.evaluation.agreement import (
    RewardResult,
    Scored,
    accuracy,
    agreement,
    from_json,
    to_json,
)
from amenable.models.adapters import AdapterShape
from amenable.models.policy import Policy
from amenable.models.reward_model import RewardModel
from amenable.pipeline.config import RewardConfig
from amenable.pipeline.engines import check_base, family_form, load_policy
from amenable.pipeline.finetune import (
    CHECKPOINT,
    LEARNER,
    Lineage,
    Made,
    keep,
    kept_before,
    on_step,
)
from amenable.pipeline.frozen import judgements_of
from amenable.pipeline.judged_rows import ReplyRows, limit_of
from amenable.pipeline.judgements import Judgements
from amenable.pipeline.knobs import read_config
from amenable.pipeline.prepare import LONGEST_BASE_NAME
from amenable.pipeline.progress import Stopwatch
from amenable.pipeline.reward_rows import (
    Chosen,
    JudgedPrompt,
    JudgedPrompts,
    Split,
    judged_prompts,
    split,
)
from amenable.pipeline.room import check_room
from amenable.pipeline.sources import install_starter
from amenable.pipeline.stage import Context
from amenable.records.measurement import Measured
from amenable.records.run import counted
from amenable.records.seeds import seed_for
from amenable.reports.numbers import value_text
from amenable.store import library
from amenable.store.artifacts import write_whole
from amenable.store.library import REWARD
from amenable.store.tables import ModelRow
from amenable.training.finetune import Budget
from amenable.training.fit import Keeping, fit
from amenable.training.optimizer import MasterWeights
from amenable.training.reward import RewardMethod, scores_of

RESULT_FILE = "reward.json"
"""In the run's folder: how often it is right."""
ACCURACY = "accuracy"
"""In a reward model's `info` and its run's outputs: the same in words."""


class Parents(NamedTuple):
    """What it is trained from, and the whole weights below that."""

    model: ModelRow
    base: ModelRow


def reward(context: Context) -> dict[str, str]:
    """`inputs.model` is a version or a base; the reward model's name is the output."""
    config = read_config(RewardConfig, context.run.config)
    install_starter(context.workspace)
    with context.workspace.database.read() as session:
        model = library.speaker(session, context.run.inputs["model"])
        parents = Parents(model, library.model(session, model.base) if model.base else model)
        learned = judgements_of(session, context.run, context.folder)
    if (kept := kept_before(context)) is not None:
        return _outputs(kept, read_result(context.folder), learned)
    network = _network(context, config, parents)
    encoder = network.policy.encoder(family_form(context.workspace.folder / parents.base.folder))
    rows = ReplyRows(encoder, limit_of(config, network.policy.num_positions))
    found = judged_prompts(rows, learned.comparisons, config.fit.tokens_per_batch)
    sides = split(found, config.held_out_share, context.run.seed)
    learned.keep(context.folder)
    training = Training(context, config, network)
    num_trained = training.fit(sides.learned, parents.model.sha256)
    result = training.measured(sides, found, is_simulated=learned.is_simulated)
    write_whole(context.folder / RESULT_FILE, to_json(result))
    lineage = Lineage(
        base=parents.base,
        parent=parents.model,
        num_trained=num_trained,
        is_simulated=learned.is_simulated,
        judged_sets=learned.sets,
    )
    return _outputs(_keep(context, network, lineage, result), result, learned)


def read_result(folder: Path) -> RewardResult:
    return from_json((folder / RESULT_FILE).read_bytes())


def _outputs(name: str, result: RewardResult, learned: Judgements) -> dict[str, str]:
    return {
        "model": name,
        ACCURACY: interval_words(result.held_out.accuracy),
        "choices_held_out": str(result.held_out.num),
        "longer_wins": value_text(result.held_out.longer_wins.value, "share"),
        **learned.counts(),
        **counted(both_bad=result.num_both_bad, left_out=result.num_left_out, cut=result.num_cut),
    }


def interval_words(share: Measured) -> str:
    """
    >>> interval_words(Measured(value=0.714, low=0.598, high=0.802))
    '71 % (60 to 80)'
    """
    return f"{value_text(share.value, 'share')} ({100 * share.low:.0f} to {100 * share.high:.0f})"


def _network(context: Context, config: RewardConfig, parents: Parents) -> RewardModel:
    """New heads, on a copy of a version's adapter or on a new one."""
    workspace, seed = context.workspace.folder, context.run.seed
    folder = workspace / parents.base.folder
    policy = load_policy(folder, parents.base)
    if parents.model is parents.base:
        shape = AdapterShape(
            rank=config.lora.rank,
            alpha=config.lora.alpha,
            marker_ids=policy.encoder(family_form(folder)).marker_ids,
        )
        policy.adapters.add(LEARNER, shape, seed=seed_for(seed, "adapter"))
    else:
        info = Policy.read_info(workspace / parents.model.folder)
        check_base(info, parents.model.name, parents.base)
        policy.adapters.load(LEARNER, workspace / parents.model.folder)
    return RewardModel.on(policy, config.num_heads, seed_for(seed, "heads"))


@dataclass(frozen=True)
class Training:
    """What learns, and how; then it is measured."""

    context: Context
    config: RewardConfig
    network: RewardModel

    def fit(self, prompts: Sequence[JudgedPrompt], parent_sha256: str) -> int:
        """How many numbers were trained."""
        knobs, seed = self.config.fit, self.context.run.seed
        judged = [each.judged for each in prompts]
        budget = Budget(knobs.tokens_per_batch, knobs.tokens_per_step)
        method = RewardMethod(self.network, judged, self.config.centring, budget, seed)
        parameters = self.network.parameters(LEARNER)
        check_room(self.network.policy, parameters, knobs)
        weights = MasterWeights(parameters, knobs.weight_decay)
        sha256 = hashlib.sha256(repr(judged).encode()).hexdigest()
        keeping = Keeping(
            folder=self.context.folder / CHECKPOINT,
            key=json.dumps([parent_sha256, sha256, self.context.run.config], sort_keys=True),
            should_stop=self.context.should_stop,
        )
        fit(method, weights, knobs, keeping, on_step(self.context, film=None))
        self.context.stop_here()
        return weights.num_trained

    def measured(self, sides: Split, found: JudgedPrompts, *, is_simulated: bool) -> RewardResult:
        learned = self._scored("Scoring what it learned from", sides.learned)
        held_out = self._scored("Scoring what was held out", sides.held_out)
        return RewardResult(
            held_out=agreement(held_out, learned),
            num_prompts_held_out=len({each.prompt for each in sides.held_out}),
            num_learned=len(learned),
            learned_accuracy=accuracy(learned),
            num_both_bad=found.num_both_bad,
            num_left_out=found.num_left_out,
            num_cut=found.num_cut,
            is_simulated=is_simulated,
        )

    def _scored(self, doing: str, prompts: Sequence[JudgedPrompt]) -> list[Scored]:
        trees = [each.tree for each in prompts]
        packs = fill([tree.num_tokens for tree in trees], self.config.fit.tokens_per_batch)
        watch = Stopwatch(doing, len(packs), "batches")

        def on_pack(done: int) -> None:
            self.context.log.progress(watch.at(done))
            self.context.stop_here()

        scores = scores_of(self.network, trees, packs, on_pack)
        return [
            _scored(scores_EK, tree, choice)
            for each, tree, scores_EK in zip(prompts, trees, scores, strict=True)
            for choice in each.choices
        ]


def _scored(scores_EK: Tensor, tree: TokenTree, choice: Chosen) -> Scored:
    gaps_E = scores_EK[:, choice.chosen] - scores_EK[:, choice.rejected]
    chosen, rejected = (len(tree.branches[at].tokens) for at in choice)
    return Scored(gaps=tuple(gaps_E.tolist()), longer=chosen - rejected)


def _keep(context: Context, network: RewardModel, lineage: Lineage, result: RewardResult) -> str:
    base = lineage.base
    form = chat_form(family_form(context.workspace.folder / base.folder))
    made = Made(
        name=f"{base.name[:LONGEST_BASE_NAME]}-reward",
        kind=REWARD,
        save=lambda folder: network.save(LEARNER, folder, base.name, form),
        info={ACCURACY: interval_words(result.held_out.accuracy)},
    )
    return keep(context, network.policy, lineage, made)
