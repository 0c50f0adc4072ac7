"""Models side by side on the same prompts and texts: samples, marks, rows, findings. No torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from amenable.evaluation.contrasts import better_of
from amenable.evaluation.evaluate import Keep, KnowsReplies, ReplyMaker, draw_keys, scores
from amenable.evaluation.examples import choose
from amenable.evaluation.graders.constraints import is_met
from amenable.evaluation.metrics import TAUGHT
from amenable.evaluation.model_spec import ModelSpec, SpecKind, anchors, newest_policy
from amenable.evaluation.perplexity import TextLogProb, perplexity_rows
from amenable.evaluation.rows import (
    ScoresByModel,
    across_rows,
    family_rows,
    score_rows,
    worst_families,
)
from amenable.evaluation.task import EvaluationPrompt
from amenable.evaluation.win_rate import BlindChoice, people_row, rule_row
from amenable.generation.engine import Engine
from amenable.pipeline.config import CompareConfig
from amenable.records.errors import DataError, NotFoundError
from amenable.records.measurement import Row
from amenable.records.sample import ModelRef, Sample, SamplingSettings
from amenable.reports import words
from amenable.reports.result import (
    ComparedModel,
    Lineage,
    Result,
    Settings,
    ShownExample,
    ShownReply,
    Training,
    Turn,
    VotesTaught,
    WorstFamily,
)

ASPECTS = ("primary function", "task versatility", "user interaction", "content generation")
TextLogProbs = Callable[[str], Sequence[TextLogProb]]
Replies = Mapping[str, Mapping[str, Sample]]


def nothing_known(_model: ModelRef, _prompt: EvaluationPrompt, _settings: SamplingSettings) -> None:
    return None


def keep_nothing(_prompt: EvaluationPrompt, _sample: Sample) -> None: ...


def no_progress(_doing: str, _done: int, _total: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """What people said: how many judged pairs trained, and the blind pairs of two versions."""

    num_judged: int = 0
    choices: Sequence[BlindChoice] = ()
    is_simulated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the models are measured on, and what is known about them beforehand."""

    prompts: Sequence[EvaluationPrompt]
    text_log_probs: TextLogProbs
    """By model name; none where an engine cannot tell."""
    settings: Settings
    votes: Votes = field(default_factory=Votes)
    training: Sequence[Training] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who hears of the work: `keep` of each new sample, `progress` of how far it is."""

    known: KnowsReplies = nothing_known
    keep: Keep = keep_nothing
    progress: Callable[[str, int, int], None] = no_progress
    """What is being done, how much of it is done, of how much."""


def compare_models(
    engine: Engine,
    specs: Sequence[ModelSpec],
    material: Material,
    config: CompareConfig,
    watch: Watch,
) -> Result:
    """Measure all models on all prompts and texts and say what differs, and how surely.

    The seed of `material.settings` draws prompts and bootstraps; replies are greedy.
    """
    seed = material.settings.seed
    if not specs:
        raise DataError("Name at least one model to compare.")
    drawn = draw_keys(material.prompts, config.num_prompts, seed)
    prompts = [prompt for prompt in material.prompts if prompt.key in drawn]
    if not prompts:
        raise DataError("There is no prompt to compare on.")
    refs = _refs(engine, specs)
    replies = _replies(engine, specs, refs, prompts, (config.max_new_tokens, seed), watch)
    texts = _texts(specs, material, watch)
    marks = {name: scores(prompts, mine) for name, mine in replies.items()}
    taught = _votes_taught(marks, specs, material.votes, seed)
    rows = _rows(marks, specs, seed)
    rows += perplexity_rows(texts, specs, seed)
    rows += [
        row
        for row in (rule_row(prompts, replies, specs, seed), _people(specs, material.votes))
        if row is not None
    ]
    rows.sort(key=lambda row: ASPECTS.index(row.aspect))
    kinds: dict[str, SpecKind] = {spec.name: spec.kind for spec in specs}
    return Result(
        models=tuple(_compared(spec, refs[spec.name]) for spec in specs),
        rows=tuple(rows),
        headline=words.headline(rows, kinds),
        says=tuple(words.findings(rows, kinds)),
        examples=_examples(prompts, replies, specs, rows, seed),
        lineage={
            spec.name: Lineage(parent=spec.parent, kind=spec.kind, facts=spec.facts)
            for spec in specs
        },
        worst_family={
            name: WorstFamily(family=worst.family, measured=worst.measured, n=worst.n)
            for name, worst in worst_families(
                [row for row in rows if row.aspect == "task versatility"]
            ).items()
        },
        training=tuple(material.training),
        votes_taught=taught,
        simulated_people=material.votes.is_simulated,
        settings=_settings(material),
    )


def _settings(material: Material) -> Settings:
    """With the kinds that these versions were taught; of old ones only today's data is known."""
    settings = material.settings
    told = [each.kinds_taught for each in material.training]
    taught = {kind for kinds in told for kind in kinds or ()}
    if not told or None in told:
        taught |= set(settings.kinds_also_taught)
    kinds = tuple(kind for kind in settings.kinds_tested if kind in taught)
    return replace(settings, kinds_also_taught=kinds)


def _refs(engine: Engine, specs: Sequence[ModelSpec]) -> dict[str, ModelRef]:
    found = {ref.name: ref for ref in engine.models()}
    for spec in specs:
        if spec.name not in found:
            raise NotFoundError("model", spec.name, known=found)
    return {spec.name: found[spec.name] for spec in specs}


def _replies(
    engine: Engine,
    specs: Sequence[ModelSpec],
    refs: Mapping[str, ModelRef],
    prompts: Sequence[EvaluationPrompt],
    asked: tuple[int, int],
    watch: Watch,
) -> Replies:
    """`asked` is the limit of new tokens and the seed."""
    total = len(prompts) * len(specs)
    found: dict[str, dict[str, Sample]] = {}
    for spec in specs:
        done = sum(map(len, found.values()))
        kept: list[str] = []

        def keep(
            prompt: EvaluationPrompt,
            sample: Sample,
            done: int = done,
            kept: list[str] = kept,
            name: str = spec.name,
        ) -> None:
            watch.keep(prompt, sample)
            kept.append(prompt.key)
            watch.progress(f"{name} replies", done + len(kept), total)

        maker = ReplyMaker(engine, prompts, *asked, watch.known, keep)
        found[spec.name] = maker.replies(spec, refs[spec.name])
    return found


def _texts(
    specs: Sequence[ModelSpec], material: Material, watch: Watch
) -> dict[str, Sequence[TextLogProb]]:
    """Once for each set of weights: a base reads plain text the same, helped or not."""
    readers = [spec.name for spec in specs if spec.kind != "helped"]
    read: dict[str, Sequence[TextLogProb]] = {}
    for at, name in enumerate(readers):
        watch.progress(f"{name} reads plain text", at, len(readers))
        if texts := material.text_log_probs(name):
            read[name] = texts
    return read


def _rows(marks: ScoresByModel, specs: Sequence[ModelSpec], seed: int) -> list[Row]:
    return [*score_rows(marks, specs, seed), *family_rows(marks, specs, seed)]


def _people(specs: Sequence[ModelSpec], votes: Votes) -> Row | None:
    versions = _two_versions(specs)
    if versions is None:
        return None
    before, after = versions
    return people_row(votes.choices, before.name, after.name)


def _two_versions(specs: Sequence[ModelSpec]) -> tuple[ModelSpec, ModelSpec] | None:
    """The newest version and its parent, if both are compared and trained here."""
    after = newest_policy(specs)
    if after is None:
        return None
    before = next((s for s in specs if s.name == after.parent and s.kind == "policy"), None)
    return None if before is None else (before, after)


def _votes_taught(
    marks: ScoresByModel, specs: Sequence[ModelSpec], votes: Votes, seed: int
) -> VotesTaught | None:
    versions = _two_versions(specs)
    if versions is None:
        return None
    names = [spec.name for spec in versions]
    rows = across_rows(score_rows({name: marks[name] for name in names}, versions, seed, TAUGHT))
    before, after = names
    sure = [row for row in rows if not row.differences[0].could_be_chance]
    changed = ", ".join(row.title.lower() for row in sure)
    who = "simulated judges" if votes.is_simulated else "people"
    return VotesTaught(
        before=before,
        after=after,
        num_votes=votes.num_judged,
        is_simulated=votes.is_simulated,
        rows=tuple(rows),
        says=f"{after} learned from {votes.num_judged} pairs judged by {who}; both versions "
        f"replied to the same requests, none of which was judged. More than chance changed: "
        f"{changed or 'nothing'}.",
    )


def _compared(spec: ModelSpec, ref: ModelRef) -> ComparedModel:
    return ComparedModel(
        name=spec.name, kind=spec.kind, form=spec.form, parent=spec.parent, sha256=ref.sha256
    )


def _examples(
    prompts: Sequence[EvaluationPrompt],
    replies: Replies,
    specs: Sequence[ModelSpec],
    rows: Sequence[Row],
    seed: int,
) -> tuple[ShownExample, ...]:
    """The newest version (or the last model) against the better base."""
    row = next((row for row in rows if row.metric == words.MAIN), None)
    subject = (newest_policy(specs) or specs[-1]).name
    values = {name: found.value for name, found in row.values.items()} if row else {}
    bases = [name for name in anchors(specs) if name != subject]
    if not bases:
        return ()
    against = better_of(bases, values, "higher") if values else bases[0]
    return tuple(
        ShownExample(
            rule=chosen.rule,
            key=chosen.prompt.key,
            family=chosen.prompt.family,
            prompt=tuple(
                Turn(role=message.role, content=message.text)
                for message in chosen.prompt.conversation.messages
            ),
            checks=tuple(words.check_words(check) for check in chosen.prompt.checks),
            replies={
                name: _shown(chosen.prompt, mine[chosen.prompt.key])
                for name, mine in replies.items()
            },
        )
        for chosen in choose(prompts, replies[subject], replies[against], seed)
    )


def _shown(prompt: EvaluationPrompt, sample: Sample) -> ShownReply:
    return ShownReply(
        text=sample.reply,
        stop_reason=sample.stop_reason,
        checks_met=tuple(is_met(check, sample.reply) for check in prompt.checks),
    )
