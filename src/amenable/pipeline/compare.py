"""The stage that measures models side by side and leaves result.json and report.html."""

from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Protocol

from amenable.datasets.examples import TextExample
from amenable.evaluation.model_spec import ModelSpec
from amenable.evaluation.perplexity import TextLogProb
from amenable.evaluation.task import EvaluationPrompt
from amenable.generation.engine import Engine, Request
from amenable.generation.remote import UNKNOWN_SHA256
from amenable.pipeline import compare_sources as sources
from amenable.pipeline.comparison import Material, Votes, Watch, compare_models
from amenable.pipeline.config import CompareConfig
from amenable.pipeline.engines import HouseAndGuests
from amenable.pipeline.knobs import read_config
from amenable.pipeline.progress import Stopwatch
from amenable.pipeline.report import write_report
from amenable.pipeline.sources import install_starter
from amenable.pipeline.stage import Context, versions
from amenable.records.errors import DataError
from amenable.records.sample import ModelRef, Sample, SamplingSettings
from amenable.reports.result import RESULT_FILE, Settings, to_json
from amenable.store.artifacts import write_whole
from amenable.store.samples import keep_sample, samples_of_stage
from amenable.store.workspace import Workspace


class ReadingEngine(Engine, Protocol):
    """An engine that also says how likely plain texts are; an empty list if it cannot tell."""

    def text_log_probs(self, model: str, texts: Sequence[str]) -> list[tuple[float, int]]: ...
    def fits(self, request: Request) -> bool: ...
    def close(self) -> None: ...


OpenEngine = Callable[[Workspace, Sequence[str]], ReadingEngine]


def compare(context: Context, open_engine: OpenEngine = HouseAndGuests) -> dict[str, str]:
    """`inputs.models` names the models, by commas; a base stands there as it is and helped.

    A guest is written NAME@ADDRESS.
    """
    install_starter(context.workspace)
    config = read_config(CompareConfig, context.run.config)
    names = [name for name in context.run.inputs.get("models", "").split(",") if name]
    if not names:
        raise DataError("Name the models to compare.")
    with context.workspace.database.read() as session:
        specs = sources.specs_of(session, names)
    texts = sources.plain_texts(config.num_text_tokens)
    with closing(open_engine(context.workspace, [spec.name for spec in specs])) as engine:
        material = _material(context, config, specs, engine, texts)
        result = compare_models(engine, specs, material, config, _watch(context))
    write_whole(context.folder / RESULT_FILE, to_json(result))
    write_report(context.folder)
    return {"headline": result.headline}


def _material(
    context: Context,
    config: CompareConfig,
    specs: Sequence[ModelSpec],
    engine: ReadingEngine,
    texts: Sequence[TextExample],
) -> Material:
    with context.workspace.database.read() as session:
        found = sources.prompts_of(session)
        tested = {check.kind for prompt in found.prompts for check in prompt.checks}
        is_trained_here = any(spec.kind == "policy" for spec in specs)
        taught = sources.kinds_taught(session) if is_trained_here else set[str]()
        choices = sources.blind_choices(session, specs)
        num_judged = sources.num_pairs_learned(session, specs)
    prompts = [each for each in found.prompts if _fits(engine, specs, each, config.max_new_tokens)]
    num_left_out = len(found.prompts) - len(prompts)
    left_out = f"; {num_left_out} too long for one of the models were left out"
    settings = Settings(
        measured_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seed=context.run.seed,
        num_prompts=min(config.num_prompts or len(prompts), len(prompts)),
        prompts_origin=found.origin + (left_out if num_left_out else ""),
        prompts_licence=found.licence,
        texts_origin="plain text of the starter set, written for Amenable (CC0-1.0)",
        decoding={
            "replies": "greedy, the same for every model",
            "limit": f"{config.max_new_tokens} new tokens",
            "examples shown to the helped base": sources.help_given(),
        },
        kinds_tested=tuple(sorted(tested)),
        kinds_also_taught=tuple(sorted(tested & taught)),
        versions=versions(),
        stop_texts=sources.stop_texts(specs),
    )
    is_simulated = any(each.is_simulated for each in (*specs, *choices))
    return Material(
        prompts=prompts,
        text_log_probs=lambda model: _read(engine, model, texts),
        settings=settings,
        votes=Votes(num_judged=num_judged, choices=choices, is_simulated=is_simulated),
        training=sources.training_of(context.workspace, specs),
    )


def _fits(
    engine: ReadingEngine, specs: Sequence[ModelSpec], prompt: EvaluationPrompt, num_new: int
) -> bool:
    """For all models, since each is marked on the same prompts."""
    settings = SamplingSettings(max_new_tokens=num_new)
    return all(
        engine.fits(Request(prompt=prompt.conversation, model=spec.name, settings=settings))
        for spec in specs
    )


def _read(engine: ReadingEngine, model: str, texts: Sequence[TextExample]) -> list[TextLogProb]:
    found = engine.text_log_probs(model, [text.text for text in texts])
    return [
        TextLogProb(
            key=f"text-{at:04}",
            sum_log_prob=sum_log_prob,
            num_tokens=num_tokens,
            num_bytes=len(text.text.encode()),
        )
        for at, (text, (sum_log_prob, num_tokens)) in enumerate(zip(texts, found, strict=False))
    ]


def _watch(context: Context) -> Watch:
    """Samples are kept as they come: no comparison asks for what this one or another has heard."""
    with context.workspace.database.read() as session:
        kept = {
            (each.sample.model, each.sample.prompt, each.sample.settings): each.sample
            for each in samples_of_stage(session, context.run.stage, versions())
            # What an address serves under a name may have changed since.
            if each.run_id == context.run.id or each.sample.model.sha256 != UNKNOWN_SHA256
        }
    watches: dict[str, Stopwatch] = {}

    def known(
        model: ModelRef, prompt: EvaluationPrompt, settings: SamplingSettings
    ) -> Sample | None:
        return kept.get((model, prompt.conversation, settings))

    def keep(prompt: EvaluationPrompt, sample: Sample) -> None:
        with context.workspace.database.write() as session:
            keep_sample(
                session,
                sample,
                run_id=context.run.id,
                prompt_key=prompt.key,
                family=prompt.family,
                checks=prompt.checks,
            )

    def progress(doing: str, done: int, total: int) -> None:
        unit = "replies" if doing.endswith("replies") else "models"
        watch = watches.setdefault(doing, Stopwatch(doing, total, unit))
        context.log.progress(watch.at(done))
        context.stop_here()

    return Watch(known=known, keep=keep, progress=progress)
