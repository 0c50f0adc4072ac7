"""The stage behind Improve: a version learns from people's comparisons, near its frozen parent."""

import json
from collections.abc import Sequence

from amenable.chat.batch import cut
from amenable.chat.encode import Encoder
from amenable.feedback import export
from amenable.models.policy import Policy
from amenable.pipeline.config import AlignConfig
from amenable.pipeline.engines import family_form
from amenable.pipeline.finetune import CHECKPOINT, LEARNER, Lineage, keep_policy, on_step
from amenable.pipeline.knobs import read_config
from amenable.pipeline.progress import Stopwatch
from amenable.pipeline.stage import Context
from amenable.records.errors import DataError, ModelError
from amenable.records.judgement import Comparison
from amenable.records.seeds import seed_for
from amenable.store import library
from amenable.training.finetune import Budget
from amenable.training.fit import Keeping, fit
from amenable.training.optimizer import MasterWeights
from amenable.training.preference import DpoKnobs, PreferenceMethod, RowPair, pair_steps
from amenable.training.reference_cache import reference_key, reference_values

LEAST_PAIRS = 2


def align(context: Context) -> dict[str, str]:
    """`inputs.model` is the parent; the new version's name is the output."""
    config = read_config(AlignConfig, context.run.config)
    with context.workspace.database.read() as session:
        parent = library.model(session, context.run.inputs["model"])
        if parent.base is None:
            raise ModelError(
                f"{parent.name} was trained whole; Improve works on versions made with LoRA."
            )
        base = library.model(session, parent.base)
        comparisons = export.comparisons(session, "improve")
    policy = Policy.load(context.workspace.folder / base.folder)
    encoder = policy.encoder(family_form(context.workspace.folder / base.folder))
    # The learner starts as a copy of its parent, which stays as it is: the reference.
    policy.adapters.load(LEARNER, context.workspace.folder / parent.folder)
    pairs = training_pairs(encoder, comparisons, config.max_tokens)
    budget = Budget(config.fit.tokens_per_batch, config.fit.tokens_per_step)
    groups = [
        group
        for step in pair_steps(pairs, budget, seed_for(context.run.seed, "epoch", 0))
        for group in step
    ]
    key = reference_key(parent.sha256, pairs, policy.network.dtype)
    watch = Stopwatch("Reading the parent's values", len(groups), "batches")
    reference = reference_values(
        policy,
        pairs,
        groups,
        context.folder / f"reference-{key[:16]}.safetensors",
        on_group=lambda done: context.log.progress(watch.at(done)),
    )
    knobs = DpoKnobs(config.dpo.beta, config.dpo.flip_rate, config.dpo.sft_weight)
    method = PreferenceMethod(policy, pairs, reference, knobs, budget, context.run.seed)
    weights = MasterWeights(policy.adapters.parameters(LEARNER), config.fit.weight_decay)
    keeping = Keeping(
        folder=context.folder / CHECKPOINT,
        key=json.dumps([key, context.run.config], sort_keys=True),
        should_stop=context.should_stop,
    )
    fit(method, weights, config.fit, keeping, on_step(context, film=None))
    context.stop_here()
    lineage = Lineage(
        base=base,
        parent=parent,
        number=_next_number(parent.name),
        is_simulated=any(each.is_simulated for each in comparisons),
    )
    return {"model": keep_policy(context, policy, lineage), "comparisons": str(len(pairs))}


def _next_number(parent_name: str) -> int:
    """Version 2 follows version 1.

    >>> _next_number("gemma-3-270m-instruct-1")
    2
    """
    last = parent_name.rsplit("-", 1)[-1]
    return int(last) + 1 if last.isdigit() else 2


def training_pairs(
    encoder: Encoder, comparisons: Sequence[Comparison], max_tokens: int
) -> list[RowPair]:
    """Chosen and rejected rows; a mended reply is chosen over both that were shown."""
    pairs: list[RowPair] = []
    for each in comparisons:
        wins = [preference] if (preference := each.preference()) else []
        texts = [(win.chosen, win.rejected) for win in wins]
        if each.mended:
            texts = [(each.mended, shown) for shown in (each.left, each.right)]
        for chosen, rejected in texts:
            rows = [
                cut(
                    encoder.training_row(each.prompt.with_reply(text), last_reply_only=True),
                    max_tokens,
                )
                for text in (chosen, rejected)
            ]
            if chosen != rejected and all(any(row.is_target) for row in rows):
                pairs.append(RowPair(*rows))
    if len(pairs) < LEAST_PAIRS:
        raise DataError(
            "The judgements so far prefer no reply to another (ties and both bad teach no order). "
            "Judge some more pairs first."
        )
    return pairs
