"""Examples chosen by rule, not by taste: the largest gain, the middle one, the largest loss."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from amenable.evaluation.graders.constraints import words
from amenable.evaluation.metrics import repetition, share_of_checks
from amenable.evaluation.task import EvaluationPrompt
from amenable.records.sample import Sample
from amenable.records.seeds import seed_for

Replies = Mapping[str, Sample]


class Chosen(NamedTuple):
    rule: str
    prompt: EvaluationPrompt


class _Gain(NamedTuple):
    """Compared part by part: checks met, then a clean ending, then less repetition."""

    checks: float
    ends: float
    less_repetition: float


def choose(
    prompts: Sequence[EvaluationPrompt], subject: Replies, against: Replies, seed: int
) -> list[Chosen]:
    """Up to three different prompts by the subject's gain; lots decide between equal gains."""
    gains = {
        prompt.key: _gain(prompt, subject[prompt.key], against[prompt.key]) for prompt in prompts
    }
    order = sorted(prompts, key=lambda each: (gains[each.key], seed_for(seed, "example", each.key)))
    if not order:
        return []
    worst, middle, best = order[0], order[len(order) // 2], order[-1]
    nothing = _Gain(0, 0, 0)
    named = [
        Chosen("largest gain" if gains[best.key] > nothing else "smallest loss", best),
        Chosen("median", middle),
        Chosen("largest loss" if gains[worst.key] < nothing else "smallest gain", worst),
    ]
    return [
        each for at, each in enumerate(named) if each.prompt not in [n.prompt for n in named[:at]]
    ]


def _gain(prompt: EvaluationPrompt, subject: Sample, against: Sample) -> _Gain:
    ours, theirs = _merits(prompt, subject), _merits(prompt, against)
    return _Gain(*(mine - other for mine, other in zip(ours, theirs, strict=True)))


def _merits(prompt: EvaluationPrompt, sample: Sample) -> _Gain:
    return _Gain(
        share_of_checks(prompt, sample.reply) if prompt.checks else 0.0,
        float(sample.ends_by_itself and bool(words(sample.reply))),
        -repetition(sample.reply),
    )
