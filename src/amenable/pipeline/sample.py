"""The stage that draws pairs of replies for people to judge, sides shuffled."""

from collections.abc import Sequence
from dataclasses import dataclass

from amenable.datasets.examples import PromptExample
from amenable.feedback import tasks
from amenable.generation.engine import Request
from amenable.pipeline.config import SampleConfig
from amenable.pipeline.engines import open_engine
from amenable.pipeline.knobs import read_config
from amenable.pipeline.progress import Stopwatch
from amenable.pipeline.sources import feedback_prompts
from amenable.pipeline.stage import Context
from amenable.records.errors import ConfigError, DataError
from amenable.records.sample import Sample, SamplingSettings
from amenable.records.seeds import seed_for
from amenable.store.samples import judged_prompt_keys, keep_sample

NUM_PROOF_PAIRS = 12


@dataclass(frozen=True)
class _Pair:
    """Two replies to one prompt: of one model with two seeds, or of two models."""

    prompt: PromptExample
    key: str
    models: tuple[str, str]


def sample(context: Context) -> dict[str, str]:
    """`inputs.model` replies twice to each prompt; for proof, `config.against` gives one reply."""
    config = read_config(SampleConfig, context.run.config)
    model = context.run.inputs["model"]
    other = config.against if config.purpose == "proof" else model
    if other is None:
        raise ConfigError("against", other, must="name the other version for proof")
    pairs = _choose(context, config, (model, other))
    engine = open_engine(context.workspace, sorted({model, other}))
    settings = SamplingSettings(
        max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p
    )
    requests = [
        Request(
            prompt=pair.prompt.conversation,
            model=name,
            settings=settings,
            seed=seed_for(context.run.seed, pair.key, side),
        )
        for pair in pairs
        for side, name in enumerate(pair.models)
    ]
    watch = Stopwatch("Drawing replies", len(requests), "replies")
    done: list[int] = []

    def on_sample(position: int, _: Sample) -> None:
        done.append(position)
        context.log.progress(watch.at(len(done)))
        context.stop_here()

    samples = engine.generate(requests, on_sample)
    num = _keep(context, config, pairs, samples)
    return {"model": model, "pairs": str(num)}


def _choose(context: Context, config: SampleConfig, models: tuple[str, str]) -> Sequence[_Pair]:
    """Prompts in a seeded order; for proof, only such as nobody judged before."""
    with context.workspace.database.read() as session:
        prompts = feedback_prompts(session)
        judged = judged_prompt_keys(session) if config.purpose == "proof" else frozenset[str]()
    keyed: dict[str, PromptExample] = {}
    for at, prompt in enumerate(prompts):
        # Two data sets may use the same key; what came first keeps it.
        key = prompt.key or f"prompt-{at}"
        keyed[key if key not in keyed else f"{key}-{at}"] = prompt
    fresh = [key for key in keyed if key not in judged] or list(keyed)
    if not fresh:
        raise DataError("There is no prompt to reply to. Import some on the Data page.")
    fresh.sort(key=lambda key: seed_for(context.run.seed, "order", key))
    wanted = NUM_PROOF_PAIRS if config.purpose == "proof" else config.num_prompts
    # Which model speaks first is shuffled here, and it is what decides the side of the screen.
    return [
        _Pair(
            keyed[key],
            key,
            models if seed_for(context.run.seed, key) % 2 else (models[1], models[0]),
        )
        for key in fresh[:wanted]
    ]


def _keep(
    context: Context, config: SampleConfig, pairs: Sequence[_Pair], samples: Sequence[Sample]
) -> int:
    """All samples and tasks in one transaction; a pair of equal replies teaches nothing."""
    num = 0
    with context.workspace.database.write() as session:
        for pair, left, right in zip(pairs, samples[0::2], samples[1::2], strict=True):
            ids = [
                keep_sample(
                    session,
                    each,
                    run_id=context.run.id,
                    prompt_key=pair.key,
                    family=pair.prompt.family,
                    checks=pair.prompt.checks,
                )
                for each in (left, right)
            ]
            if left.reply == right.reply:
                continue
            tasks.add_pair(
                session,
                purpose=config.purpose,
                run_id=context.run.id,
                left_sample_id=ids[0],
                right_sample_id=ids[1],
            )
            num += 1
    return num
