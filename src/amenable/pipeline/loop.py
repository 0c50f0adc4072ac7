"""The loop, from base model to proof and round again: where it stands, and what comes next."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Self

from sqlalchemy.orm import Session

from amenable.feedback import tasks
from amenable.feedback.export import comparisons
from amenable.pipeline import fitting
from amenable.pipeline.config import STAGE_CONFIGS, AlignConfig, PrepareConfig, recorded
from amenable.pipeline.history import (
    DEFAULT_BASE,
    START_KEY,
    History,
    Votes,
    Wanted,
    for_judging,
    is_for_judging,
)
from amenable.pipeline.knobs import read_config
from amenable.records.errors import ConfigError, ConflictError
from amenable.records.run import Run
from amenable.store import library, runs, settings

StepName = Literal["prepare", "finetune", "sample", "judge", "improve", "compare"]
StepStatus = Literal["done", "running", "next", "waiting", "failed"]
Deed = Literal["choose", "judge", "judge_proof", "draw", "improve", "wait", "continue", "read"]
"""What a person can do: choose a base, judge, draw more replies, improve, … or only wait."""

DEFAULT_SEED = 7
ENOUGH_TO_IMPROVE = 20
BEGUN = ("queued", "running", "done")

TITLES: dict[StepName, str] = {
    "prepare": "Fetch the base model",
    "finetune": "Teach it by demonstrations",
    "sample": "Draw replies to judge",
    "judge": "Judge pairs",
    "improve": "Improve",
    "compare": "Compare",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One part of the loop. "running" includes what waits for the worker."""

    name: StepName
    title: str
    status: StepStatus
    run: Run | None = None
    """The newest run of this step."""


@dataclass(frozen=True, slots=True)
class NextStep:
    """What a person can do now, or what they wait for, in one sentence."""

    sentence: str
    deed: Deed
    run_id: str = ""
    """The run that is waited for, or is to be continued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """Where the loop stands in its present round, read from the runs and judgements alone.

    A round judges replies of one version, the parent, and makes the next one, the child.
    """

    steps: tuple[Step, ...]
    base: str
    parent: str
    """Version 1 in the first round, also before it is there."""
    child: str
    number: int
    """Of the parent; the child's is one more."""
    has_parent: bool
    has_child: bool
    judged_pile: tasks.Pile
    """Pairs of replies of the parent."""
    proof_pile: tasks.Pile
    """Blind pairs of parent and child."""
    judged: tasks.Progress
    proof: tasks.Progress
    can_improve: bool
    """Whether there are enough judgements, and some that no improvement has learned from yet."""
    next_step: NextStep

    @classmethod
    def of(cls, session: Session) -> Self:
        history = History.of(session)
        judged = tasks.progress(session, history.judged_pile)
        proof = tasks.progress(session, history.proof_pile)
        blind = Votes.on(session, history.proof_pile)
        steps = _steps(history, judged, blind)
        return cls(
            steps=steps,
            base=history.base,
            parent=history.parent,
            child=history.child,
            number=history.number,
            has_parent=history.version_1 is not None,
            has_child=history.improved is not None,
            judged_pile=history.judged_pile,
            proof_pile=history.proof_pile,
            judged=judged,
            proof=proof,
            can_improve=_can_improve(history, Votes.on(session, history.judged_pile)),
            next_step=_next_step(steps, judged, proof),
        )

    def step(self, name: StepName) -> Step:
        return next(step for step in self.steps if step.name == name)

    @property
    def is_closed(self) -> bool:
        """Whether this round is over, blind pairs and all: then another may begin."""
        return all(step.status == "done" for step in self.steps) and not self.proof.open


def begin(session: Session, config: PrepareConfig, *, base: str = DEFAULT_BASE) -> str:
    """Queue the first run, which fetches the base model; if it has begun already, give that run.

    `base` is a known model, a hub id, a folder or a file. What follows is for `advance`.
    """
    existing = History.of(session).current("prepare")
    if existing is not None and existing.status in BEGUN and is_of(session, existing, base):
        return existing.id
    return begin_anew(session, config, base=base)


def is_of(session: Session, prepare: Run, base: str) -> bool:
    """Whether this run fetches that base, by its name in the library or by where it comes from."""
    asked_for = prepare.inputs.get("model")
    name = prepare.outputs.get("model", asked_for)
    origins = (row.origin for row in library.models(session) if row.name == name)
    return base in (asked_for, name, *origins)


def begin_anew(session: Session, config: PrepareConfig, *, base: str = DEFAULT_BASE) -> str:
    """Begin once more, with another base model or other data; what was made before stays."""
    run_id = _queue(session, Wanted("prepare", {"model": base}, asdict(config)))
    settings.put(session, START_KEY, run_id)
    return run_id


def advance(session: Session) -> str | None:
    """Queue the next run that follows by itself; returns its id, or None if nothing does.

    What failed or was stopped is not tried again: that is a person's decision.
    """
    history = History.of(session)
    pile = history.proof_pile
    wanted = history.following(tasks.progress(session, pile), Votes.on(session, pile))
    return None if wanted is None else _queue(session, wanted)


def improve(session: Session, config: AlignConfig) -> str:
    """Queue an improvement of the parent by the judgements on its replies; refuses too few."""
    history = History.of(session)
    judged = tasks.progress(session, history.judged_pile)
    if judged.done < ENOUGH_TO_IMPROVE:
        raise ConfigError(
            "the number of judged pairs",
            judged.done,
            must=f"be at least {ENOUGH_TO_IMPROVE}: judge {ENOUGH_TO_IMPROVE - judged.done} more",
        )
    judgements = comparisons(session, "improve", runs=history.judged_pile.runs)
    if not any(pair.preference() or pair.mended for pair in judgements):
        raise ConfigError("the number of preferred or mended replies", 0, must="be at least 1")
    newest = history.current("align", history.parent)
    if newest is not None and newest.status in runs.OPEN:
        raise ConflictError(f"An improvement is {newest.status} already: run {newest.id}.")
    if not _can_improve(history, Votes.on(session, history.judged_pile)):
        raise ConflictError(
            f"{history.child} has learned from these judgements already; judge some more first."
        )
    inputs = {"model": history.parent, "comparisons": "improve"}
    return _queue(session, Wanted("align", inputs, asdict(config)))


def draw_more(session: Session) -> str:
    """Queue another drawing of replies of the version that is judged, by a seed of its own."""
    history = History.of(session)
    if history.version_1 is None:
        raise ConflictError("There is no version yet whose replies could be drawn.")
    drawn = [run for run in history.of_stage("sample", history.parent) if is_for_judging(run)]
    if drawn and drawn[0].status in runs.OPEN:
        raise ConflictError(f"Replies are being drawn already: run {drawn[0].id}.")
    return _queue(session, history.sampling(), seed=DEFAULT_SEED + len(drawn))


def go_round_again(session: Session) -> str:
    """Begin the next round: replies of the newest version are drawn, to be judged in their turn."""
    state = LoopState.of(session)
    if not state.is_closed:
        raise ConflictError(f"This round is not over yet. {state.next_step.sentence}")
    return _queue(session, for_judging(state.child))


def compare(session: Session, names: Sequence[str]) -> str:
    """Queue a comparison that a person asks for, beside those of the loop; gives the run's id."""
    return _queue(session, Wanted("compare", {"models": ",".join(names)}, {}))


def _queue(session: Session, wanted: Wanted, *, seed: int = DEFAULT_SEED) -> str:
    # What was fitted to a person's time goes under what the step itself asks for. The defaults are
    # written out: a later version of this program may have others.
    knobs = fitting.kept_knobs(session, wanted.stage) | dict(wanted.config)
    config = read_config(STAGE_CONFIGS[wanted.stage], knobs)
    return runs.queue(
        session,
        stage=wanted.stage,
        inputs=wanted.inputs,
        config=recorded(config),
        seed=seed,
    )


def _can_improve(history: History, judged: Votes) -> bool:
    newest = history.current("align", history.parent)
    if judged.num < ENOUGH_TO_IMPROVE or (newest is not None and newest.status in runs.OPEN):
        return False
    return newest is None or judged.have_news_for(newest)


def _steps(history: History, judged: tasks.Progress, blind: Votes) -> tuple[Step, ...]:
    sample_run = history.like(history.sampling())
    align_run = history.current("align", history.parent)
    is_enough = judged.done >= ENOUGH_TO_IMPROVE
    has_pairs = sample_run is not None and sample_run.status == "done"
    is_judged = has_pairs and (is_enough or align_run is not None)
    found: list[tuple[StepName, Run | None, StepStatus]] = [
        ("prepare", history.current("prepare"), "next"),
        ("finetune", history.like(history.finetuning()), "waiting"),
        ("sample", sample_run, "waiting"),
        ("judge", None, "done" if is_judged else "next" if has_pairs else "waiting"),
        ("improve", align_run, "next" if is_judged else "waiting"),
        ("compare", _compare_run(history, blind), "waiting"),
    ]
    return tuple(
        Step(name=name, title=TITLES[name], status=_status(run, without=status), run=run)
        for name, run, status in found
    )


def _compare_run(history: History, blind: Votes) -> Run | None:
    """Several runs make the last step; the one at work, or that failed or ended it, is shown."""
    if history.improved is None:
        if history.number > 1:
            return None
        run = history.like(history.first_comparison())
        return None if run is None or run.status == "done" else run
    last = history.like(history.last_comparison())
    with_blind = history.like(history.last_comparison(blind)) if blind.num else None
    if with_blind or last:
        return with_blind or last
    run = history.like(history.proof_sampling())
    return None if run is None or run.status == "done" else run


def _status(run: Run | None, *, without: StepStatus) -> StepStatus:
    if run is None:
        return without
    match run.status:
        case "done":
            return "done"
        case "queued" | "running":
            return "running"
        case "failed" | "stopped":
            return "failed"


def _next_step(steps: Sequence[Step], judged: tasks.Progress, proof: tasks.Progress) -> NextStep:
    """The first of these that applies: mend, judge, improve, wait, read."""
    step = {each.name: each for each in steps}
    return (
        _after_failure(steps)
        or _at_the_start(step["prepare"])
        or _to_judge(step["judge"], judged, proof)
        or _to_improve(step["improve"], judged)
        or _to_wait_for(steps)
        or NextStep("This round is closed: read what changed, and how sure that is.", "read")
    )


def _after_failure(steps: Sequence[Step]) -> NextStep | None:
    for step in steps:
        if step.status == "failed" and step.run is not None:
            what = "was stopped" if step.run.status == "stopped" else "failed"
            sentence = f"“{step.title}” {what}: see why, and continue it."
            return NextStep(sentence, "continue", step.run.id)
    return None


def _at_the_start(prepare: Step) -> NextStep | None:
    if prepare.status != "next":
        return None
    return NextStep("Choose a base model: the loop begins with it.", "choose")


def _to_judge(judge: Step, judged: tasks.Progress, proof: tasks.Progress) -> NextStep | None:
    if proof.open:
        pairs = "1 blind pair" if proof.open == 1 else f"{proof.open} blind pairs"
        return NextStep(f"Judge {pairs} of the two versions.", "judge_proof")
    if judge.status != "next":
        return None
    missing = ENOUGH_TO_IMPROVE - judged.done
    if not judged.open:
        return NextStep(
            f"No pair is left, but Improve needs {missing} more: draw more replies.", "draw"
        )
    return NextStep(f"Judge {missing} more, then Improve can begin.", "judge")


def _to_improve(step: Step, judged: tasks.Progress) -> NextStep | None:
    if step.status != "next":
        return None
    return NextStep(f"Improve: the model learns from your {judged.done} choices.", "improve")


def _to_wait_for(steps: Sequence[Step]) -> NextStep | None:
    """What is at work, or is about to follow by itself."""
    for step in steps:
        if step.status == "running" and step.run is not None:
            sentence = f"“{step.title}” is at work: you can watch it."
            return NextStep(sentence, "wait", step.run.id)
    for step in steps:
        if step.status == "waiting":
            return NextStep(f"“{step.title}” begins by itself.", "wait")
    return None
