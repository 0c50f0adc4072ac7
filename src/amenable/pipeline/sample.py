"""The stage that draws pairs of replies for people to judge, sides shuffled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from amenable.datasets.examples import PromptExample
from amenable.feedback import tasks
from amenable.generation.engine import Request
from amenable.generation.local import LocalEngine
from amenable.pipeline.config import NUM_PROOF_PAIRS, SampleConfig
from amenable.pipeline.engines import open_engine
from amenable.pipeline.knobs import read_config
from amenable.pipeline.progress import Stopwatch
from amenable.pipeline.sources import feedback_prompts
from amenable.pipeline.stage import Context
from amenable.records.conversation import Conversation
from amenable.records.errors import ConfigError, DataError
from amenable.records.sample import ModelRef, Sample, SamplingSettings
from amenable.records.seeds import seed_for
from amenable.store.samples import KeptSample, judged_prompts, keep_sample, samples_of
from amenable.store.tables import TaskRow

ENOUGH_TO_LEAVE_SOME = 4 * NUM_PROOF_PAIRS
"""With fewer prompts none is left aside: Improve needs them more."""
PROOF_SEED = 12
"""One for all runs, so that all of them leave the same prompts aside."""

Asked = tuple[ModelRef, Conversation, SamplingSettings, int]
"""What decides a reply: model, prompt, settings and seed."""


@dataclass(frozen=True)
class _Pair:
    """Two replies to one prompt: of one model with two seeds, or of two models."""

    prompt: PromptExample
    key: str
    requests: tuple[Request, Request]


def sample(context: Context) -> dict[str, str]:
    """`inputs.model` replies twice to each prompt; for proof, `config.against` gives one reply."""
    config = read_config(SampleConfig, context.run.config)
    model = context.run.inputs["model"]
    other = config.against if config.purpose == "proof" else model
    if other is None:
        raise ConfigError("against", other, must="name the other version for proof")
    with context.workspace.database.read() as session:
        num = _num_laid_out(session, context.run.id)
    if num:  # an earlier attempt died between laying them out and its own end
        return {"model": model, "pairs": str(num)}
    candidates = _candidates(context, config, (model, other))
    if not candidates:
        return {"model": model, "pairs": "0"}
    engine = open_engine(context.workspace, sorted({model, other}))
    pairs, num_left_out = _that_fit(engine, candidates, config.num_prompts)
    if not pairs:
        raise DataError(
            f"No prompt leaves room for a reply of {config.max_new_tokens} tokens. "
            "Import shorter ones on the Data page."
        )
    refs = {ref.name: ref for ref in engine.models()}
    _draw(context, engine, pairs, refs)
    num = _lay_out(context, config, pairs, refs)
    left_out = {"left_out": str(num_left_out)} if num_left_out else {}
    return {"model": model, "pairs": str(num)} | left_out


def _num_laid_out(session: Session, run_id: str) -> int:
    query = select(func.count(TaskRow.id)).where(TaskRow.run_id == run_id)
    return session.scalars(query).one()


def _candidates(context: Context, config: SampleConfig, models: tuple[str, str]) -> Sequence[_Pair]:
    """All pairs that could be drawn, in the order in which they are.

    None for proof if every prompt was judged before: the comparison then does without blind pairs.
    """
    with context.workspace.database.read() as session:
        prompts = _keyed(feedback_prompts(session))
        judged = judged_prompts(session)
    if not prompts:
        raise DataError("There is no prompt to reply to. Import some on the Data page.")
    if config.purpose == "proof":
        keys = _fresh(prompts, judged)
    else:
        aside = _left_aside(prompts, judged)
        keys = [key for key, prompt in prompts.items() if prompt.conversation not in aside]
        keys.sort(key=lambda key: seed_for(context.run.seed, "order", key))
    settings = SamplingSettings(
        max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p
    )
    seed = context.run.seed
    if config.purpose == "proof":
        # The next round draws the child's replies too: they are not to be the blind ones again.
        seed = seed_for(seed, config.purpose)
    return [_pair(seed, key, prompts[key], models, settings) for key in keys]


def _keyed(prompts: Sequence[PromptExample]) -> dict[str, PromptExample]:
    keyed: dict[str, PromptExample] = {}
    for at, prompt in enumerate(prompts):
        # Two data sets may use the same key; what came first keeps it.
        key = prompt.key or f"prompt-{at}"
        keyed[key if key not in keyed else f"{key}-{at}"] = prompt
    return keyed


def _fresh(prompts: Mapping[str, PromptExample], judged: frozenset[Conversation]) -> list[str]:
    """Prompts that nobody judged, those for proof first.

    What improves is judged meanwhile, but none of the first: so they stay the first.
    """
    fresh = [key for key, prompt in prompts.items() if prompt.conversation not in judged]
    return sorted(fresh, key=lambda key: seed_for(PROOF_SEED, "proof", key))


def _left_aside(
    prompts: Mapping[str, PromptExample], judged: frozenset[Conversation]
) -> frozenset[Conversation]:
    """What proof will need: a reply that people have judged before is no blind one."""
    if len(prompts) < ENOUGH_TO_LEAVE_SOME:
        return frozenset()
    keys = _fresh(prompts, judged)[:NUM_PROOF_PAIRS]
    return frozenset(prompts[key].conversation for key in keys)


def _pair(
    run_seed: int,
    key: str,
    prompt: PromptExample,
    models: tuple[str, str],
    settings: SamplingSettings,
) -> _Pair:
    # Which model speaks first is shuffled here, and it is what decides the side of the screen.
    first, second = models if seed_for(run_seed, key) % 2 else models[::-1]

    def request(model: str, side: int) -> Request:
        seed = seed_for(run_seed, key, side)
        return Request(prompt=prompt.conversation, model=model, settings=settings, seed=seed)

    return _Pair(prompt, key, (request(first, 0), request(second, 1)))


def _that_fit(
    engine: LocalEngine, candidates: Sequence[_Pair], wanted: int
) -> tuple[list[_Pair], int]:
    """The first `wanted` pairs for which the context has room, and how many were passed over."""
    pairs: list[_Pair] = []
    num_left_out = 0
    for pair in candidates:
        if len(pairs) == wanted:
            break
        if all(engine.fits(request) for request in pair.requests):
            pairs.append(pair)
        else:
            num_left_out += 1
    return pairs, num_left_out


def _draw(
    context: Context, engine: LocalEngine, pairs: Sequence[_Pair], refs: Mapping[str, ModelRef]
) -> None:
    """Each reply is kept as it comes; what an earlier attempt drew is not drawn again."""
    with context.workspace.database.read() as session:
        known = _kept(session, context.run.id).keys()
    wanted = [
        (pair, request)
        for pair in pairs
        for request in pair.requests
        if _asked(request, refs) not in known
    ]
    total = 2 * len(pairs)
    watch = Stopwatch("Drawing replies", total, "replies")
    done = total - len(wanted)
    context.log.progress(watch.at(done))

    def on_sample(position: int, drawn: Sample) -> None:
        nonlocal done
        pair = wanted[position][0]
        with context.workspace.database.write() as session:
            keep_sample(
                session,
                drawn,
                run_id=context.run.id,
                prompt_key=pair.key,
                family=pair.prompt.family,
                checks=pair.prompt.checks,
            )
        done += 1
        context.log.progress(watch.at(done))
        context.stop_here()

    engine.generate([request for _, request in wanted], on_sample)


def _kept(session: Session, run_id: str) -> dict[Asked, KeptSample]:
    return {
        (kept.sample.model, kept.sample.prompt, kept.sample.settings, kept.sample.seed): kept
        for kept in samples_of(session, run_id)
    }


def _asked(request: Request, refs: Mapping[str, ModelRef]) -> Asked:
    return refs[request.model], request.prompt, request.settings, request.seed


def _lay_out(
    context: Context,
    config: SampleConfig,
    pairs: Sequence[_Pair],
    refs: Mapping[str, ModelRef],
) -> int:
    """All tasks in one transaction, and once; a pair of equal replies teaches nothing."""
    with context.workspace.database.write() as session:
        if num := _num_laid_out(session, context.run.id):
            return num
        kept = _kept(session, context.run.id)
        for pair in pairs:
            left, right = (kept[_asked(request, refs)] for request in pair.requests)
            if left.sample.reply != right.sample.reply:
                tasks.add_pair(
                    session,
                    purpose=config.purpose,
                    run_id=context.run.id,
                    left_sample_id=left.id,
                    right_sample_id=right.id,
                )
        return _num_laid_out(session, context.run.id)
