"""The stage that makes version 1: a base model learns to reply from demonstrations."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from amenable.chat.encode import Encoder, TokenRow
from amenable.chat.packing import Limit
from amenable.chat.template import chat_form
from amenable.generation.engine import Request
from amenable.generation.local import LocalEngine, Speaker
from amenable.models.adapters import AdapterShape
from amenable.models.merge import save_trained
from amenable.models.policy import INFO_FILE, Extent, Policy
from amenable.pipeline.config import FinetuneConfig
from amenable.pipeline.engines import family_form, load_policy
from amenable.pipeline.frozen import demonstrations_of
from amenable.pipeline.judgements import JUDGED_SETS
from amenable.pipeline.knobs import read_config
from amenable.pipeline.packages import needs_four_bits
from amenable.pipeline.progress import Stopwatch, read_film
from amenable.pipeline.room import check_room
from amenable.pipeline.sources import LEARNED_FROM
from amenable.pipeline.stage import Context
from amenable.records.conversation import Conversation
from amenable.records.errors import DataError
from amenable.records.run import counted
from amenable.records.sample import ModelRef, SamplingSettings
from amenable.records.seeds import seed_for
from amenable.store import library
from amenable.store.artifacts import hash_folder, whole_folder, write_whole
from amenable.store.library import IN_FOUR_BITS, ModelEntry
from amenable.store.tables import ModelRow
from amenable.training.finetune import Budget, LikelihoodMethod
from amenable.training.fit import Keeping, OnStep, fit
from amenable.training.optimizer import MasterWeights
from amenable.training.state import Progress

LEARNER = "learner"  # the adapter's name while it is trained
CHECKPOINT = "checkpoint"  # the folder of it, in the run's own
EXTENTS: dict[str, Extent] = {
    "lora": "adapter",
    "qlora": "adapter",
    "layers": "layers",
    "full": "full",
}
FILM_STEPS = (0, 10, 20, 40)
FILM_PROMPTS = (
    "Write a short poem about the sea.",
    "What is the capital of France? Answer in one short sentence.",
    "Give me three tips for sleeping better.",
    "Rewrite politely: Send me the report now.",
    "Who will win the lottery next week?",
)
FILM_SETTINGS = SamplingSettings(max_new_tokens=64)


@dataclass(frozen=True)
class FilmStrip:
    """Five fixed prompts, answered as training goes on, so that waiting teaches."""

    engine: LocalEngine
    model: str
    context: Context

    def frame(self, step: int) -> None:
        """One picture; a run that was killed after it, and goes on, does not take it twice."""
        if any(frame["step"] == step for frame in read_film(self.context.folder)):
            return
        prompts = [Conversation.of(("user", text)) for text in FILM_PROMPTS]
        requests = [
            Request(prompt=prompt, model=self.model, settings=FILM_SETTINGS) for prompt in prompts
        ]
        requests = [request for request in requests if self.engine.fits(request)]
        replies = [
            {
                "prompt": sample.prompt.last_user_text(),
                "reply": sample.reply,
                "stop_reason": sample.stop_reason,
                "log_prob_end": self.engine.end_log_prob(self.model, sample.prompt, sample.reply),
            }
            for sample in self.engine.generate(requests)
        ]
        self.context.log.film({"step": step, "replies": replies})


def finetune(context: Context) -> dict[str, str]:
    """`inputs.model` is the base; the policy's name is its output.

    `inputs.data`, if any, is a mixture of demonstrations instead of what the loop uses.
    """
    if (name := kept_before(context)) is not None:
        return {"model": name}
    config = read_config(FinetuneConfig, context.run.config)
    with context.workspace.database.read() as session:
        base = library.speaker(session, context.run.inputs["model"])
        learned = demonstrations_of(session, context.run, context.folder)
    base_folder = context.workspace.folder / base.folder
    form = family_form(base_folder)
    policy = _loaded(base_folder, base, config)
    encoder = policy.encoder(form)
    _put_learner(policy, encoder, config, context.run.seed)
    within = replace(config, max_tokens=min(config.max_tokens, policy.num_positions))
    taught = training_rows(encoder, learned.conversations, within, context.run.seed)
    learned.keep(context.folder)
    method = LikelihoodMethod(
        policy,
        taught.rows,
        Budget(config.fit.tokens_per_batch, config.fit.tokens_per_step),
        context.run.seed,
        learned.shares(taught.origins),
    )
    if not any(method.steps(epoch) for epoch in range(config.fit.num_epochs)):
        raise DataError("With weights as small as these, no demonstration is seen at all.")
    extent = EXTENTS[config.method]
    check_room(policy, policy.trained_parameters(LEARNER, extent), config.fit)
    weights = MasterWeights.of(policy, LEARNER, extent, config.fit.weight_decay)
    speaker = Speaker(ModelRef(LEARNER, base.sha256), policy, LEARNER, encoder)
    film = FilmStrip(LocalEngine({LEARNER: speaker}), LEARNER, context)
    known_by = [base.sha256, taught.sha256, learned.about(), context.run.config]
    key = json.dumps(known_by, sort_keys=True)
    keeping = Keeping(folder=context.folder / CHECKPOINT, key=key, should_stop=context.should_stop)
    progress = fit(method, weights, config.fit, keeping, on_step(context, film))
    context.stop_here()
    film.frame(progress.step)
    lineage = Lineage(
        base=base,
        parent=base,
        number=1,
        num_trained=weights.num_trained,
        is_simulated=False,
        learned_from=learned.about(),
        in_four_bits=config.method == "qlora",
    )
    return {"model": keep_policy(context, policy, lineage), **taught.counts()}


def _loaded(folder: Path, base: ModelRow, config: FinetuneConfig) -> Policy:
    if config.method != "qlora":
        return load_policy(folder, base)
    needs_four_bits()
    return load_policy(folder, base, in_four_bits=True)


def _put_learner(policy: Policy, encoder: Encoder, config: FinetuneConfig, seed: int) -> None:
    # Where the whole vocabulary is trained, markers are rows like any other.
    has_markers = config.train_marker_rows and config.method != "full"
    marker_ids = encoder.marker_ids if has_markers else ()
    if EXTENTS[config.method] == "adapter":
        shape = AdapterShape(rank=config.lora.rank, alpha=config.lora.alpha, marker_ids=marker_ids)
        policy.adapters.add(LEARNER, shape, seed=seed_for(seed, "adapter"))
    else:
        policy.adapters.add_markers_only(LEARNER, marker_ids)


@dataclass(frozen=True)
class TrainingRows:
    """Token rows with something to learn."""

    rows: list[TokenRow]
    origins: list[int]
    """Which demonstration each was made of."""
    num_cut: int
    """Demonstrations that lost their end, also where nothing to learn was left of them."""
    num_left_out: int
    """Demonstrations that were not to be cut."""

    def counts(self) -> dict[str, str]:
        """For the run's record."""
        beyond = counted(cut=self.num_cut, left_out=self.num_left_out)
        return {"demonstrations": str(len(self.rows)), **beyond}

    @property
    def sha256(self) -> str:
        return hashlib.sha256(repr(self.rows).encode()).hexdigest()


def training_rows(
    encoder: Encoder, conversations: Sequence[Conversation], config: FinetuneConfig, seed: int
) -> TrainingRows:
    """What is too long loses its end or is left out; of more than `config.limit` the seed takes
    some."""
    chosen = list(range(len(conversations)))
    if config.limit:
        chosen.sort(key=lambda at: seed_for(seed, "limit", at))
        chosen = chosen[: config.limit]
    whole = {at: _whole_row(encoder, conversations[at], config) for at in chosen}
    limit = Limit(config.max_tokens, config.too_long == "leave_out")
    rows = {at: limit.fit(row) for at, row in whole.items()}
    rows = {at: row for at, row in rows.items() if any(row.is_target)}
    if not rows:
        raise DataError(f"No demonstration has a reply within {config.max_tokens} tokens.")
    num_beyond = sum(not limit.holds(row) for row in whole.values())
    cut, left_out = (0, num_beyond) if limit.leaves_out else (num_beyond, 0)
    return TrainingRows(list(rows.values()), list(rows), cut, left_out)


def _whole_row(encoder: Encoder, conversation: Conversation, config: FinetuneConfig) -> TokenRow:
    if config.turns == "all":
        return encoder.training_row(conversation)
    return encoder.reply_row(*conversation.split_reply())


def on_step(context: Context, film: FilmStrip | None) -> OnStep:
    """Metrics, progress with the time that is left, and the film strip's frames."""
    watch: list[Stopwatch] = []
    tokens_before: list[int] = []

    def heard(progress: Progress, num_steps: int, metrics: dict[str, float]) -> None:
        if not watch:
            watch.append(Stopwatch("Training", num_steps, "steps", rate_unit="tokens a second"))
            tokens_before.append(progress.tokens)
            context.log.go_back_to(progress.step)
        if metrics:
            context.log.metrics(progress.step, metrics)
        tokens = progress.tokens - tokens_before[0]
        context.log.progress(watch[0].at(progress.step, amount=tokens))
        is_new = bool(metrics) or progress.step == 0
        if film is not None and is_new and progress.step in FILM_STEPS:
            film.frame(progress.step)

    return heard


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where what was trained comes from."""

    base: ModelRow
    parent: ModelRow
    number: int = 0
    """Of a version; other models have none."""
    num_trained: int
    """Numbers that an optimizer changed."""
    is_simulated: bool
    """Whether simulated judgements went into it; a parent's are passed on."""
    learned_from: Mapping[str, Any] | None = None
    """Its demonstrations; None where it learned from people's choices."""
    judged_sets: Mapping[str, str] = field(default_factory=dict[str, str])
    """Imported data sets of choices that went into it, by their sha256."""
    in_four_bits: bool = False
    """Whether the base's layers were in 4 bits while it learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What training made, before the library knows it."""

    name: str
    """As it is to be called; where that is taken, a number comes after it."""
    kind: str
    save: Callable[[Path], None]
    info: Mapping[str, Any]


def kept_before(context: Context) -> str | None:
    """The version that this run has put into the library: it died between that and its end.

    Its checkpoint is gone then, or about to go: without a look here it would train from zero, and
    make a second version.
    """
    with context.workspace.database.read() as session:
        rows = library.models(session)
    name = next((row.name for row in rows if row.run_id == context.run.id), None)
    if name is not None:
        drop_checkpoint(context)
    return name


def keep_policy(context: Context, policy: Policy, lineage: Lineage) -> str:
    """Save the trained policy into the library, whole or not at all, and give its name."""
    base = lineage.base
    form = chat_form(family_form(context.workspace.folder / base.folder))
    learned = {LEARNED_FROM: lineage.learned_from} if lineage.learned_from else {}
    made = Made(
        name=f"{base.name}-instruct-{lineage.number}",
        kind="policy",
        save=lambda folder: save_trained(policy, LEARNER, folder, base.name, form),
        info={"version": lineage.number, **learned},
    )
    return keep(context, policy, lineage, made)


def keep(context: Context, policy: Policy, lineage: Lineage, made: Made) -> str:
    """Put what this run made into the library, once, with its licence and where it is from."""
    if (kept := kept_before(context)) is not None:
        return kept
    workspace, base, parent = context.workspace, lineage.base, lineage.parent
    with workspace.database.read() as session:
        name = library.free_name(session, made.name)
    folder = workspace.library / name
    form = family_form(workspace.folder / base.folder)
    info = {
        "family_form": form,
        "base_sha256": base.sha256,
        "parent": parent.name,
        "parent_sha256": parent.sha256,
        "run": context.run.id,
    }
    with whole_folder(folder) as unfinished:
        made.save(unfinished)
        write_whole(unfinished / INFO_FILE, (json.dumps(info, indent=1) + "\n").encode())
        carry_licence(workspace.folder / base.folder, unfinished)
    entry = ModelEntry(
        name=name,
        sha256=hash_folder(folder),
        kind=made.kind,
        chat_form=form,
        licence=base.licence,
        origin=f"trained here from {parent.name}",
        folder=folder.relative_to(workspace.folder).as_posix(),
        parent=parent.name,
        base=base.name if policy.is_adapter(LEARNER) else None,
        run_id=context.run.id,
        is_simulated=parent.is_simulated or lineage.is_simulated,
        info={
            "num_parameters": policy.num_parameters,
            "num_trained": lineage.num_trained,
            "bytes": sum(path.stat().st_size for path in folder.iterdir()),
            "terms": base.info.get("terms", ""),
            **({JUDGED_SETS: dict(lineage.judged_sets)} if lineage.judged_sets else {}),
            **({IN_FOUR_BITS: True} if lineage.in_four_bits else {}),
            **made.info,
        },
    )
    with workspace.database.write() as session:
        library.add_model(session, entry)
    drop_checkpoint(context)
    return name


def drop_checkpoint(context: Context) -> None:
    shutil.rmtree(context.folder / CHECKPOINT, ignore_errors=True)  # three times the adapter's size


def carry_licence(base_folder: Path, folder: Path) -> None:
    terms = base_folder / "LICENCE.txt"
    if terms.is_file():
        shutil.copyfile(terms, folder / "LICENCE.txt")
