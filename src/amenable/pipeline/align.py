"""The stage behind Improve: a version learns from people's comparisons, near its frozen parent."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy.orm import Session

from amenable.chat.batch import cut
from amenable.chat.encode import Encoder
from amenable.feedback import export
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
from amenable.pipeline.history import NEWEST_VOTE
from amenable.pipeline.knobs import read_config
from amenable.pipeline.progress import Stopwatch
from amenable.pipeline.sources import asks_any, sealed_prompts
from amenable.pipeline.stage import Context
from amenable.records.errors import DataError, ModelError
from amenable.records.judgement import Comparison, Judged, Preference
from amenable.records.seeds import seed_for
from amenable.store import library
from amenable.store.artifacts import write_whole
from amenable.store.tables import ModelRow
from amenable.training.finetune import Budget
from amenable.training.fit import Keeping, fit
from amenable.training.optimizer import MasterWeights
from amenable.training.preference import DpoKnobs, PreferenceMethod, RowPair, pair_steps
from amenable.training.reference_cache import reference_key, reference_values

LEAST_PAIRS = 2
JUDGEMENTS = "judgements.json"
"""In the run's folder: ids of what it learns from."""


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
        comparisons = _comparisons(context, session, parent)
    counts = {
        "judged": str(len(comparisons)),
        NEWEST_VOTE: str(max((each.judgement_id for each in comparisons), default=0)),
        "comparisons": str(sum(teaches(each) for each in comparisons)),
    }
    if (kept := kept_before(context)) is not None:
        return {"model": kept, **counts}
    check_base(Policy.read_info(context.workspace.folder / parent.folder), parent.name, base)
    policy = load_policy(context.workspace.folder / base.folder, base)
    encoder = policy.encoder(family_form(context.workspace.folder / base.folder))
    # The learner starts as a copy of its parent, which stays as it is: the reference.
    policy.adapters.load(LEARNER, context.workspace.folder / parent.folder)
    pairs, num_left_out = training_pairs(encoder, comparisons, config.max_tokens)
    if num_left_out:
        counts["left_out"] = str(num_left_out)
    _freeze(context, comparisons)
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
        number=int(parent.info.get("version", 1)) + 1,
        is_simulated=any(each.is_simulated for each in comparisons),
    )
    return {"model": keep_policy(context, policy, lineage), **counts}


def _comparisons(context: Context, session: Session, parent: ModelRow) -> list[export.JudgedPair]:
    """Judgements on the parent's own replies, the same in every attempt of this run.

    People judge on, and take back, while it trains: that is for the next improvement.
    """
    path = context.folder / JUDGEMENTS
    if not path.is_file():
        sealed = sealed_prompts(session)
        found = export.comparisons(session, "improve", model_sha256=parent.sha256)
        return [each for each in found if not asks_any(each.prompt, sealed)]
    ids = json.loads(path.read_text(encoding="utf-8"))
    return export.comparisons(session, "improve", judgement_ids=ids)


def _freeze(context: Context, comparisons: Sequence[export.JudgedPair]) -> None:
    ids = [each.judgement_id for each in comparisons]
    write_whole(context.folder / JUDGEMENTS, json.dumps(ids).encode())


def teaches(comparison: Comparison) -> bool:
    """Whether an order of replies can be learned from it: ties and both bad teach none."""
    return comparison.preference() is not None or comparison.mended is not None


class TrainingPairs(NamedTuple):
    pairs: list[RowPair]
    num_left_out: int
    """Comparisons whose prompt leaves no room for a reply."""


def training_pairs(
    encoder: Encoder, comparisons: Sequence[Comparison], max_tokens: int
) -> TrainingPairs:
    """Chosen and rejected rows; a mended reply is chosen over both that were shown."""
    pairs: list[RowPair] = []
    num_left_out = 0
    for each in comparisons:
        found = [
            RowPair(
                *(
                    cut(encoder.reply_row(each.prompt, one.text, has_end=one.has_end), max_tokens)
                    for one in order
                )
            )
            for order in _orders(each)
            if order.chosen.text != order.rejected.text
        ]
        whole = [pair for pair in found if all(any(row.is_target) for row in pair)]
        pairs += whole
        num_left_out += bool(found) and not whole
    if len(pairs) >= LEAST_PAIRS:
        return TrainingPairs(pairs, num_left_out)
    if num_left_out:
        raise DataError(
            f"{num_left_out} of the judged prompts leave no room for a reply within {max_tokens} "
            "tokens, and too few are left. Begin it by hand: amenable align with a larger "
            "--max-tokens."
        )
    raise DataError(
        "The judgements so far prefer no reply to another (ties and both bad teach no order). "
        "Judge some more pairs first."
    )


def _orders(comparison: Comparison) -> list[Preference]:
    if comparison.mended:
        mended = Judged(comparison.mended, has_end=True)
        return [Preference(mended, shown) for shown in (comparison.left, comparison.right)]
    preference = comparison.preference()
    return [preference] if preference else []
