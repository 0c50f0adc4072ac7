"""The runs of the present loop, the versions they led to, and the run that follows by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from amenable.feedback import tasks
from amenable.pipeline.config import NUM_PROOF_PAIRS
from amenable.records.run import Run
from amenable.store import runs, settings
from amenable.store.tables import JudgementRow, TaskRow

START_KEY = "loop.start"
"""Setting: the first run of the loop; runs before it belong to an earlier one."""
DEFAULT_BASE = "gemma-3-270m"
NUM_RUNS = 1000
NEWEST_VOTE = "newest_vote"
"""Role of the newest vote that a run read, beside how many it read."""


@dataclass(frozen=True, slots=True)
class Votes:
    """Choices that stand, known by how many they are and by the newest one's id.

    A vote that is taken back and given again is a new one: their number alone would not tell.
    """

    num: int = 0
    newest: int = 0

    @classmethod
    def on(cls, session: Session, pile: tasks.Pile) -> Self:
        query = (
            select(func.count(JudgementRow.id), func.max(JudgementRow.id))
            .join(TaskRow, TaskRow.id == JudgementRow.task_id)
            .where(pile.holds(), JudgementRow.undone_at.is_(None), JudgementRow.choice != "skip")
        )
        num, newest = session.execute(query).one()
        return cls(num, newest or 0)

    def have_news_for(self, run: Run) -> bool:
        """Whether the run learned without the newest; older runs wrote down their number alone."""
        if NEWEST_VOTE in run.outputs:
            return self.newest > int(run.outputs[NEWEST_VOTE])
        return self.num > int(run.outputs.get("judged", "0"))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that follows from others; it is the same run if stage, inputs and purpose are."""

    stage: str
    inputs: Mapping[str, str]
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def is_like(self, run: Run) -> bool:
        return (
            run.stage == self.stage
            and run.inputs in (self.inputs, self._inputs_before)
            and run.config.get("purpose") == self.config.get("purpose")
            and run.config.get("against") == self.config.get("against")
        )

    @property
    def _inputs_before(self) -> Mapping[str, str]:
        """As runs had them before the newest vote was written down."""
        return {role: name for role, name in self.inputs.items() if role != NEWEST_VOTE}


@dataclass(frozen=True)
class History:
    """The runs since this loop began, newest first, and the versions they led to."""

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

    @cached_property
    def version_1(self) -> str | None:
        """What the first finetuning of this loop made; a later one by hand changes nothing."""
        made = [run for run in self.of_stage("finetune", self.base) if run.status == "done"]
        return made[-1].outputs["model"] if made else None

    @cached_property
    def parent(self) -> str:
        """The version whose replies were drawn last."""
        drawn = (run.inputs["model"] for run in self.runs if is_for_judging(run))
        ours = {self.version_1, *(run.outputs.get("model") for run in self.of_stage("align"))}
        return next((name for name in drawn if name in ours), self.version_1 or self._name(1))

    @cached_property
    def improved(self) -> str | None:
        """The newest version that learned from judgements of the parent's replies."""
        run = self.done("align", self.parent)
        return run.outputs.get("model") if run else None

    @property
    def child(self) -> str:
        return self.improved or self._name(self.number + 1)

    @cached_property
    def number(self) -> int:
        """How many steps of training the parent is away from its base."""
        makers = {run.outputs.get("model"): run.inputs["model"] for run in self.of_stage("align")}
        number, name = 1, self.parent
        while (before := makers.get(name)) is not None and number <= len(makers):
            number, name = number + 1, before
        return number

    def _name(self, number: int) -> str:
        return f"{self.base}-instruct-{number}"

    @property
    def judged_pile(self) -> tasks.Pile:
        drawn = (run for run in self.of_stage("sample", self.parent) if is_for_judging(run))
        return tasks.Pile("improve", tuple(run.id for run in drawn))

    @property
    def proof_pile(self) -> tasks.Pile:
        drawn = (run.id for run in self.runs if self.proof_sampling().is_like(run))
        return tasks.Pile("proof", tuple(drawn))

    def of_stage(self, stage: str, model: str | None = None) -> list[Run]:
        return [
            run
            for run in self.runs
            if run.stage == stage and model in (None, run.inputs.get("model"))
        ]

    def current(self, stage: str, model: str | None = None) -> Run | None:
        """The run that stands for this stage: one to come or at work, else one done, else any."""
        newest = next(iter(self.of_stage(stage, model)), None)
        if newest is None or newest.status in runs.OPEN:
            return newest
        return self.done(stage, model) or newest

    def done(self, stage: str, model: str | None = None) -> Run | None:
        return next((run for run in self.of_stage(stage, model) if run.status == "done"), None)

    def like(self, wanted: Wanted) -> Run | None:
        """The newest run of this kind that is done; if none is, the newest of any status."""
        alike = [run for run in self.runs if wanted.is_like(run)]
        return next((run for run in alike if run.status == "done"), alike[0] if alike else None)

    def has_done(self, wanted: Wanted) -> bool:
        run = self.like(wanted)
        return run is not None and run.status == "done"

    def finetuning(self) -> Wanted:
        return Wanted("finetune", {"model": self.base})

    def sampling(self) -> Wanted:
        return for_judging(self.parent)

    def first_comparison(self) -> Wanted:
        return Wanted("compare", {"models": f"{self.base},{self.version_1}"})

    def proof_sampling(self) -> Wanted:
        config = {"purpose": "proof", "against": self.parent, "num_prompts": NUM_PROOF_PAIRS}
        return Wanted("sample", {"model": self.child}, config)

    def last_comparison(self, blind: Votes | None = None) -> Wanted:
        """Measured once the new version is there, and again when its blind pairs are judged."""
        inputs = {"models": f"{self.base},{self.parent},{self.child}"}
        if blind is not None and blind.num:
            inputs |= {"blind": str(blind.num), NEWEST_VOTE: str(blind.newest)}
        return Wanted("compare", inputs)

    def following(self, proof: tasks.Progress, blind: Votes) -> Wanted | None:
        """The next run that needs nobody; None if a run has to end or a person to act first."""
        has_proof = self.improved is not None and self.has_done(self.proof_sampling())
        chain: list[tuple[bool, Wanted]] = [
            (self.done("prepare") is not None, self.finetuning()),
            (self.version_1 is not None, self.sampling()),
            (self.has_done(self.sampling()), self.first_comparison()),
            (self.improved is not None, self.proof_sampling()),
            (has_proof, self.last_comparison(None if proof.open else blind)),
        ]
        return next(
            (wanted for is_ready, wanted in chain if is_ready and self.like(wanted) is None), None
        )


def for_judging(model: str) -> Wanted:
    return Wanted("sample", {"model": model}, {"purpose": "improve", "against": None})


def is_for_judging(run: Run) -> bool:
    return run.stage == "sample" and run.config.get("purpose") == "improve"
