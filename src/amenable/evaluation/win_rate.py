"""Who wins: a rule judge against the base, and people's blind choices between two versions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from amenable.evaluation.graders.constraints import is_met, words
from amenable.evaluation.metrics import METRICS
from amenable.evaluation.model_spec import ModelSpec, first_base
from amenable.evaluation.rows import FEW_PROMPTS, metric_row
from amenable.evaluation.task import EvaluationPrompt
from amenable.feedback.simulated import SeenReply, preference
from amenable.records.measurement import Difference, Measured, Row
from amenable.records.sample import Sample
from amenable.stats.intervals import wilson
from amenable.stats.significance import sign_test

RULE_JUDGE = (
    "Judged by a rule, not by people: more checks met wins, then a clean ending, then less "
    "repetition, else a tie. The rule looks at the same checks as “Does what was asked”, so it is "
    "no independent evidence."
)
POINTS = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}

Replies = Mapping[str, Mapping[str, Sample]]
"""By model and prompt key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindChoice:
    """A person's choice between two versions, who did not know which was which."""

    key: str
    """The prompt's."""
    models: tuple[str, str]
    preferred: str | None
    """None for a tie or both bad."""
    is_simulated: bool


def rule_points(prompt: EvaluationPrompt, reply: Sample, other: Sample) -> float:
    """1 if `reply` wins, 0 if `other` does, 0.5 for a tie; the simulated judges' rule, unerring."""
    return POINTS[preference(_seen(prompt, reply), _seen(prompt, other))]


def rule_row(
    prompts: Sequence[EvaluationPrompt],
    replies: Replies,
    specs: Sequence[ModelSpec],
    seed: int,
) -> Row | None:
    """Win rates against the first base as it is, whose own value is one half.

    Where no base is compared, the first model stands in its place, and the row says so.
    """
    found = first_base(specs)
    against = (found or specs[0]).name
    marks = {
        spec.name: {
            prompt.key: rule_points(
                prompt, replies[spec.name][prompt.key], replies[against][prompt.key]
            )
            for prompt in prompts
        }
        for spec in specs
    }
    metric = METRICS["win_rate"]
    if found is None:
        metric = replace(
            metric,
            title=f"Preferred to {against}",
            about=f"Share of requests on which the reply is preferred to that of {against}, the "
            f"first model here; a tie counts half, so {against} itself stands at one half.",
        )
    row = metric_row(metric, marks, specs, seed)
    return row and replace(row, note=RULE_JUDGE)


def people_row(choices: Sequence[BlindChoice], before: str, after: str) -> Row | None:
    """How often people preferred the later version; choices on one prompt count together.

    They are few: Wilson's interval and the exact sign test hold for any number of them.
    """
    found = [choice for choice in choices if set(choice.models) == {before, after}]
    by_prompt: dict[str, list[float]] = {}
    for choice in found:
        points = 0.5 if choice.preferred is None else float(choice.preferred == after)
        by_prompt.setdefault(choice.key, []).append(points)
    if len(by_prompt) < FEW_PROMPTS:
        return None
    marks = {key: sum(points) / len(points) for key, points in by_prompt.items()}
    share = wilson(sum(marks.values()), len(marks))
    metric = METRICS["win_rate_by_people"]
    # The other's share is what this one leaves, so the gap between them is s - (1 - s).
    difference = Difference(
        model=after,
        against=before,
        value=2 * share.estimate - 1,
        low=2 * share.low - 1,
        high=2 * share.high - 1,
        p=sign_test([mark - 0.5 for mark in marks.values()]),
    )
    who = "simulated people" if any(choice.is_simulated for choice in found) else "people"
    return Row(
        aspect=metric.aspect,
        metric=metric.name,
        unit=metric.unit,
        n=len(marks),
        values={
            before: Measured(value=1 - share.estimate, low=1 - share.high, high=1 - share.low),
            after: Measured(value=share.estimate, low=share.low, high=share.high),
        },
        differences=(difference,),
        better=metric.better,
        title=metric.title,
        about=metric.about,
        note=f"{len(found)} choices of {who}, who did not know which reply was whose.",
    )


def _seen(prompt: EvaluationPrompt, sample: Sample) -> SeenReply:
    """An empty reply has not ended: it never began."""
    return SeenReply(
        text=sample.reply,
        checks_met=sum(is_met(check, sample.reply) for check in prompt.checks),
        stop_reason=sample.stop_reason if words(sample.reply) else "length",
    )
