"""The first loop, from base model to proof: where it stands, and what follows by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from sqlalchemy.orm import Session

from amenable.feedback import tasks
from amenable.feedback.export import comparisons
from amenable.pipeline import fitting
from amenable.pipeline.config import AlignConfig, PrepareConfig
from amenable.records.errors import ConfigError, ConflictError
from amenable.records.run import Run
from amenable.store import runs, settings

StepName = Literal["prepare", "finetune", "sample", "judge", "improve", "compare"]
StepStatus = Literal["done", "running", "next", "waiting", "failed"]

START_KEY = "loop.start"
"""Setting: the first run of the loop; runs before it belong to an earlier one."""
SEED_KEY = "loop.seed"
DEFAULT_BASE = "gemma-3-270m"
DEFAULT_SEED = 7
ENOUGH_TO_IMPROVE = 20
NUM_PROOF_PAIRS = 12
NUM_RUNS = 1000
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
    """What a person can do now, or what they wait for: one sentence, and where to go."""

    sentence: str
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """Where the first loop stands, read from the runs and judgements alone."""

    steps: tuple[Step, ...]
    base: str
    policy_1: str
    policy_2: str
    has_policy_1: bool
    has_policy_2: bool
    judged: tasks.Progress
    """Pairs of replies of version 1."""
    proof: tasks.Progress
    """Blind pairs of versions 1 and 2."""
    next_step: NextStep

    @classmethod
    def of(cls, session: Session) -> Self:
        history = _History.of(session)
        judged, proof = tasks.progress(session, "improve"), tasks.progress(session, "proof")
        steps = _steps(history, judged)
        return cls(
            steps=steps,
            base=history.base,
            policy_1=history.policy_1,
            policy_2=history.policy_2,
            has_policy_1=history.done("finetune") is not None,
            has_policy_2=history.done("align") is not None,
            judged=judged,
            proof=proof,
            next_step=_next_step(steps, judged, proof),
        )

    def step(self, name: StepName) -> Step:
        return next(step for step in self.steps if step.name == name)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A run that follows from others; it is the same run if stage, inputs and purpose are."""

    stage: str
    inputs: Mapping[str, str]
    config: Mapping[str, Any]

    def is_like(self, run: Run) -> bool:
        return (
            run.stage == self.stage
            and run.inputs == self.inputs
            and run.config.get("purpose") == self.config.get("purpose")
            and run.config.get("against") == self.config.get("against")
        )


@dataclass(frozen=True, slots=True)
class _History:
    """The runs since this loop began, newest first, and the names they led to."""

    base: str
    runs: Sequence[Run]

    @classmethod
    def of(cls, session: Session) -> Self:
        every = runs.list_runs(session, limit=NUM_RUNS)
        wanted = settings.get(session, START_KEY)
        # Whoever queues a first run without `begin` begins with it.
        starts = [run for run in every if run.stage == "prepare" and wanted in (None, run.id)]
        if not starts:
            return cls(DEFAULT_BASE, [])
        start = starts[-1]
        asked_for = start.inputs.get("model", DEFAULT_BASE)
        since = [
            run
            for run in every
            if run.created_at >= start.created_at and (run.stage != "prepare" or run.id == start.id)
        ]
        return cls(start.outputs.get("model", asked_for), since)

    @property
    def policy_1(self) -> str:
        run = self.done("finetune")
        return run.outputs.get("model", self._version(1)) if run else self._version(1)

    @property
    def policy_2(self) -> str:
        run = self.done("align")
        return run.outputs.get("model", self._version(2)) if run else self._version(2)

    def _version(self, number: int) -> str:
        return f"{self.base}-instruct-{number}"

    def current(self, stage: str) -> Run | None:
        """The run that stands for this stage: one to come or at work, else one done, else any."""
        newest = next((run for run in self.runs if run.stage == stage), None)
        if newest is None or newest.status in runs.OPEN:
            return newest
        return self.done(stage) or newest

    def done(self, stage: str) -> Run | None:
        return next((r for r in self.runs if r.stage == stage and r.status == "done"), None)

    def like(self, wanted: _Wanted) -> Run | None:
        """The newest run of this kind that is done; if none is, the newest of any status."""
        alike = [run for run in self.runs if wanted.is_like(run)]
        return next((run for run in alike if run.status == "done"), alike[0] if alike else None)

    def has_done(self, wanted: _Wanted) -> bool:
        run = self.like(wanted)
        return run is not None and run.status == "done"

    def finetuning(self) -> _Wanted:
        return _Wanted("finetune", {"model": self.base}, {})

    def sampling(self) -> _Wanted:
        return _Wanted("sample", {"model": self.policy_1}, {"purpose": "improve", "against": None})

    def first_comparison(self) -> _Wanted:
        return _Wanted("compare", {"models": f"{self.base},{self.policy_1}"}, {})

    def proof_sampling(self) -> _Wanted:
        config = {"purpose": "proof", "against": self.policy_1, "num_prompts": NUM_PROOF_PAIRS}
        return _Wanted("sample", {"model": self.policy_2}, config)

    def last_comparison(self) -> _Wanted:
        models = f"{self.base},{self.policy_1},{self.policy_2}"
        return _Wanted("compare", {"models": models}, {})

    def following(self) -> _Wanted | None:
        """The next run that needs nobody; None if a run has to end or a person to act first."""
        chain: list[tuple[bool, _Wanted]] = [
            (self.done("prepare") is not None, self.finetuning()),
            (self.done("finetune") is not None, self.sampling()),
            (self.has_done(self.sampling()), self.first_comparison()),
            (self.done("align") is not None, self.proof_sampling()),
            (self.done("align") is not None and self._has_proof(), self.last_comparison()),
        ]
        return next(
            (wanted for is_ready, wanted in chain if is_ready and self.like(wanted) is None), None
        )

    def _has_proof(self) -> bool:
        return self.has_done(self.proof_sampling())


def begin(session: Session, config: PrepareConfig, *, base: str = DEFAULT_BASE) -> str:
    """Queue the first run, which fetches the base model; if it has begun already, give that run.

    `base` is a known model, a hub id, a folder or a file. What follows is for `advance`.
    """
    existing = _History.of(session).current("prepare")
    if existing is not None and existing.inputs.get("model") == base and existing.status in BEGUN:
        return existing.id
    return begin_anew(session, config, base=base)


def begin_anew(session: Session, config: PrepareConfig, *, base: str = DEFAULT_BASE) -> str:
    """Begin once more, with another base model or other data; what was made before stays."""
    run_id = _queue(session, _Wanted("prepare", {"model": base}, asdict(config)))
    settings.put(session, START_KEY, run_id)
    return run_id


def advance(session: Session) -> str | None:
    """Queue the next run that follows by itself; returns its id, or None if nothing does.

    What failed or was stopped is not tried again: that is a person's decision.
    """
    wanted = _History.of(session).following()
    return None if wanted is None else _queue(session, wanted)


def improve(session: Session, config: AlignConfig) -> str:
    """Queue an improvement of version 1 by the comparisons; refuses when they are too few."""
    history = _History.of(session)
    judged = tasks.progress(session, "improve").done
    if judged < ENOUGH_TO_IMPROVE:
        raise ConfigError(
            "the number of judged pairs",
            judged,
            must=f"be at least {ENOUGH_TO_IMPROVE}: judge {ENOUGH_TO_IMPROVE - judged} more",
        )
    if not any(pair.preference() or pair.mended for pair in comparisons(session, "improve")):
        raise ConfigError("the number of preferred or mended replies", 0, must="be at least 1")
    newest = history.current("align")
    if newest is not None and newest.status in runs.OPEN:
        raise ConflictError(f"An improvement is {newest.status} already: run {newest.id}.")
    inputs = {"model": history.policy_1, "comparisons": "improve"}
    return _queue(session, _Wanted("align", inputs, asdict(config)))


def compare(session: Session, names: Sequence[str]) -> str:
    """Queue a comparison that a person asks for, beside those of the loop; gives the run's id."""
    return _queue(session, _Wanted("compare", {"models": ",".join(names)}, {}))


def _queue(session: Session, wanted: _Wanted) -> str:
    return runs.queue(
        session,
        stage=wanted.stage,
        inputs=wanted.inputs,
        # What was fitted to a person's time goes under what the step itself asks for.
        config=fitting.kept_knobs(session, wanted.stage) | dict(wanted.config),
        seed=settings.get(session, SEED_KEY, DEFAULT_SEED),
    )


def _steps(history: _History, judged: tasks.Progress) -> tuple[Step, ...]:
    sample_run = history.like(history.sampling())
    align_run = history.current("align")
    is_enough = judged.done >= ENOUGH_TO_IMPROVE
    has_pairs = sample_run is not None and sample_run.status == "done"
    is_judged = has_pairs and (is_enough or align_run is not None)
    found: list[tuple[StepName, Run | None, StepStatus]] = [
        ("prepare", history.current("prepare"), "next"),
        ("finetune", history.current("finetune"), "waiting"),
        ("sample", sample_run, "waiting"),
        ("judge", None, "done" if is_judged else "next" if has_pairs else "waiting"),
        ("improve", align_run, "next" if is_judged else "waiting"),
        ("compare", _compare_run(history), "waiting"),
    ]
    return tuple(
        Step(name=name, title=TITLES[name], status=_status(run, without=status), run=run)
        for name, run, status in found
    )


def _compare_run(history: _History) -> Run | None:
    """Several runs make the last step; the one at work, or that failed or ended it, is shown."""
    if history.done("align") is None:
        run = history.like(history.first_comparison())
        return None if run is None or run.status == "done" else run
    last = history.like(history.last_comparison())
    if last is not None:
        return last
    proof = history.like(history.proof_sampling())
    return None if proof is None or proof.status == "done" else proof


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
        or NextStep("The first loop is closed: read what changed, and how sure that is.", "/report")
    )


def _after_failure(steps: Sequence[Step]) -> NextStep | None:
    for step in steps:
        if step.status == "failed" and step.run is not None:
            what = "was stopped" if step.run.status == "stopped" else "failed"
            return NextStep(
                f"“{step.title}” {what}: see why, and continue it.", f"/runs/{step.run.id}"
            )
    return None


def _at_the_start(prepare: Step) -> NextStep | None:
    if prepare.status != "next":
        return None
    return NextStep("Choose a base model: the loop begins with it.", "/models")


def _to_judge(judge: Step, judged: tasks.Progress, proof: tasks.Progress) -> NextStep | None:
    if proof.open:
        pairs = "1 blind pair" if proof.open == 1 else f"{proof.open} blind pairs"
        return NextStep(f"Judge {pairs} of the two versions.", "/judge?purpose=proof")
    if judge.status != "next":
        return None
    missing = ENOUGH_TO_IMPROVE - judged.done
    if not judged.open:
        return NextStep(
            f"No pair is left, but Improve needs {missing} more: draw more replies.",
            "/runs",
        )
    return NextStep(f"Judge {missing} more, then Improve can begin.", "/judge")


def _to_improve(step: Step, judged: tasks.Progress) -> NextStep | None:
    if step.status != "next":
        return None
    return NextStep(f"Improve: the model learns from your {judged.done} choices.", "/judge")


def _to_wait_for(steps: Sequence[Step]) -> NextStep | None:
    """What is at work, or is about to follow by itself."""
    for step in steps:
        if step.status == "running" and step.run is not None:
            return NextStep(f"“{step.title}” is at work: you can watch it.", f"/runs/{step.run.id}")
    for step in steps:
        if step.status == "waiting":
            return NextStep(f"“{step.title}” begins by itself.", "/runs")
    return None
