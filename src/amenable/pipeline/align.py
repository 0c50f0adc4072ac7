"""The stage behind Improve: a version learns from people's comparisons, near its frozen parent."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

import torch

from amenable.chat.encode import Encoder
from amenable.chat.packing import fill
from amenable.chat.trees import TokenTree
from amenable.models.policy import Policy
from amenable.pipeline.config import AlignConfig
from amenable.pipeline.engines import check_base, family_form, load_policy
from amenable.pipeline.finetune import (
    CHECKPOINT,
    LEARNER,
    Lineage,
    keep_policy,
    kept_before,
    on_step,
)
from amenable.pipeline.frozen import judgements_of
from amenable.pipeline.judged_rows import ReplyRows, limit_of, training_pairs, training_replies
from amenable.pipeline.judgements import Judgements
from amenable.pipeline.knobs import read_config
from amenable.pipeline.progress import Stopwatch, read_metrics
from amenable.pipeline.room import check_room
from amenable.pipeline.stage import Context
from amenable.records.errors import ModelError
from amenable.records.judgement import Comparison, Rating
from amenable.records.run import counted
from amenable.records.seeds import seed_for
from amenable.store import library
from amenable.training.finetune import Budget
from amenable.training.fit import Keeping, fit
from amenable.training.losses.preference import SHAPES, Form, PreferenceKnobs
from amenable.training.optimizer import MasterWeights
from amenable.training.preference import PreferenceMethod, RowPair, pair_trees, tree_steps
from amenable.training.reference_cache import Reference, read_reference, reference_key
from amenable.training.step import Method
from amenable.training.unpaired import UnpairedMethod, judged_trees

LEAST_DISPLACEMENT = 1.0
"""Nats a reply; less can be rounding."""
ALIKE = 0.1
"""Of the usual distance of replies to different prompts."""


def align(context: Context) -> dict[str, str]:
    """`inputs.model` is the parent; the new version's name is the output."""
    config = read_config(AlignConfig, context.run.config)
    with context.workspace.database.read() as session:
        parent = library.speaker(session, context.run.inputs["model"])
        if parent.base is None:
            raise ModelError(
                f"{parent.name} was trained whole; Improve works on versions made with LoRA."
            )
        base = library.model(session, parent.base)
        learned = judgements_of(session, context.run, context.folder)
    counts = learned.counts()
    if (kept := kept_before(context)) is not None:
        return {"model": kept, **counts, **displacement(read_metrics(context.folder), config)}
    check_base(Policy.read_info(context.workspace.folder / parent.folder), parent.name, base)
    policy = load_policy(context.workspace.folder / base.folder, base)
    encoder = policy.encoder(family_form(context.workspace.folder / base.folder))
    # The learner starts as a copy of its parent, which stays as it is: the reference.
    policy.adapters.load(LEARNER, context.workspace.folder / parent.folder)
    feed = Feed(context, config, policy, encoder, parent.sha256)
    lesson = feed.lesson(learned)
    counts |= lesson.counts
    learned.keep(context.folder)
    check_room(policy, policy.trained_parameters(LEARNER, "adapter"), config.fit)
    weights = MasterWeights.of(policy, LEARNER, "adapter", config.fit.weight_decay)
    keeping = Keeping(
        folder=context.folder / CHECKPOINT,
        key=json.dumps([lesson.key, context.run.config], sort_keys=True),
        should_stop=context.should_stop,
    )
    fit(lesson.method, weights, config.fit, keeping, on_step(context, film=None))
    context.stop_here()
    lineage = Lineage(
        base=base,
        parent=parent,
        number=int(parent.info.get("version", 1)) + 1,
        num_trained=weights.num_trained,
        is_simulated=learned.is_simulated,
        judged_sets=learned.sets,
    )
    counts |= displacement(read_metrics(context.folder), config)
    return {"model": keep_policy(context, policy, lineage), **counts}


def displacement(points: Sequence[Mapping[str, float]], config: AlignConfig) -> dict[str, str]:
    """By how many nats chosen replies ended up less likely than under the parent, if they did.

    A loss that only widens the gap between two replies may lower both, and what rises in their
    place nobody chose (Razin et al. 2024, arXiv 2410.08847). Taken over the last quarter of the
    steps; a loss without a reference cannot tell.

    >>> falling = [{"gain_chosen": 0.5}, {"gain_chosen": -1.0}, {"gain_chosen": -2.0}]
    >>> displacement(falling, AlignConfig())
    {'displaced': '2.0'}
    """
    loss = config.preference.loss
    if loss == "kto" or not SHAPES[loss].needs_reference or not points:
        return {}
    last = points[-max(1, len(points) // 4) :]
    gain = fmean(point["gain_chosen"] for point in last)
    return {"displaced": f"{-gain:.1f}"} if gain <= -LEAST_DISPLACEMENT else {}


def _gap(pairs: Sequence[RowPair]) -> dict[str, str]:
    """By how many tokens the chosen replies are longer: what a loss could learn instead."""
    tokens = round(
        fmean(sum(each.chosen.is_target) - sum(each.rejected.is_target) for each in pairs)
    )
    return counted(longer=max(tokens, 0), shorter=max(-tokens, 0))


class Lesson(NamedTuple):
    """A method with all that it learns from, and what that is known by."""

    method: Method[Any]
    key: str
    counts: Mapping[str, str]
    """For the run's record."""


@dataclass(frozen=True)
class Feed:
    """Makes judgements into what a method trains on, the frozen parent's values included."""

    context: Context
    config: AlignConfig
    policy: Policy
    encoder: Encoder
    parent_sha256: str

    @property
    def _budget(self) -> Budget:
        return Budget(self.config.fit.tokens_per_batch, self.config.fit.tokens_per_step)

    def lesson(self, learned: Judgements) -> Lesson:
        loss = self.config.preference.loss
        if loss == "kto":
            return self._replies(learned.comparisons, learned.ratings)
        return self._pairs(learned.comparisons, loss)

    def _pairs(self, comparisons: Sequence[Comparison], loss: Form) -> Lesson:
        knobs, seed = self.config.preference, self.context.run.seed
        usual = knobs.usual()
        rows = self._rows()
        found = training_pairs(rows, comparisons, flip_rate=knobs.flip_rate)
        trees = pair_trees(found.pairs)
        steps = tree_steps(trees, self._budget, seed_for(seed, "epoch", 0))
        key = reference_key(self.parent_sha256, trees, self.policy.network.dtype)
        counts = counted(left_out=found.num_left_out, cut=rows.num_cut) | _gap(found.pairs)
        reference_P2 = torch.zeros(len(trees), 2)
        if SHAPES[loss].needs_reference:
            packs = [pack for step in steps for pack in step]
            reference_P2, apart_P = self._reference(key, trees, packs)
            counts |= counted(alike=int((apart_P < ALIKE).sum()))
        method = PreferenceMethod(
            self.policy,
            found.pairs,
            reference_P2,
            PreferenceKnobs(
                form=loss,
                beta=usual.beta,
                margin=knobs.margin,
                flips=knobs.flips,
                sft_weight=usual.sft_weight,
            ),
            self._budget,
            seed,
        )
        return Lesson(method, key, counts)

    def _replies(self, comparisons: Sequence[Comparison], ratings: Sequence[Rating]) -> Lesson:
        seed = self.context.run.seed
        rows = self._rows()
        found = training_replies(rows, comparisons, seed_for(seed, "strangers"), ratings=ratings)
        trees = judged_trees(found.judged)
        packs = fill([tree.num_tokens for tree in trees], self._budget.per_pack)
        key = reference_key(self.parent_sha256, trees, self.policy.network.dtype)
        method = UnpairedMethod(
            self.policy,
            found.judged,
            self._reference(key, trees, packs).log_probs_TK,
            self.config.preference.usual().beta,
            self._budget,
            seed,
        )
        return Lesson(method, key, counted(left_out=found.num_left_out, cut=rows.num_cut))

    def _rows(self) -> ReplyRows:
        return ReplyRows(self.encoder, limit_of(self.config, self.policy.num_positions))

    def _reference(
        self, key: str, trees: Sequence[TokenTree], packs: Sequence[Sequence[int]]
    ) -> Reference:
        log = self.context.log
        watch = Stopwatch("Reading the parent's values", len(packs), "batches")
        return read_reference(
            self.policy,
            trees,
            packs,
            self.context.folder / f"reference-{key[:16]}.safetensors",
            on_group=lambda done: log.progress(watch.at(done)),
        )
