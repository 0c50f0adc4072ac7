"""Models reply to the same prompts, greedily and under the same limit; then come the marks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from amenable.evaluation.metrics import score
from amenable.evaluation.model_spec import ModelSpec
from amenable.evaluation.task import EvaluationPrompt, spread
from amenable.generation.engine import Engine, Request
from amenable.records.sample import ModelRef, Sample, SamplingSettings
from amenable.records.score import Score
from amenable.records.seeds import seed_for

Keep = Callable[[EvaluationPrompt, Sample], None]


KnowsReplies = Callable[[ModelRef, EvaluationPrompt, SamplingSettings], Sample | None]
"""What was sampled before, by model, prompt and settings."""


@dataclass(frozen=True, slots=True)
class ReplyMaker:
    """Asks for what is not known yet, and hands on each reply as it comes."""

    engine: Engine
    prompts: Sequence[EvaluationPrompt]
    max_new_tokens: int
    seed: int
    known: KnowsReplies
    keep: Keep

    def replies(self, spec: ModelSpec, ref: ModelRef) -> dict[str, Sample]:
        """One reply a prompt, by key; greedy, so that no draw favours a model."""
        settings = self.settings(spec)
        found = {
            prompt.key: sample
            for prompt in self.prompts
            if (sample := self.known(ref, prompt, settings)) is not None
        }
        missing = [prompt for prompt in self.prompts if prompt.key not in found]
        requests = [
            Request(
                prompt=prompt.conversation,
                model=spec.name,
                settings=settings,
                seed=seed_for(self.seed, "compare", prompt.key),
            )
            for prompt in missing
        ]

        def on_sample(position: int, sample: Sample) -> None:
            named = replace(sample, model=ref)
            found[missing[position].key] = named
            self.keep(missing[position], named)

        if requests:
            self.engine.generate(requests, on_sample)
        return found

    def settings(self, spec: ModelSpec) -> SamplingSettings:
        return SamplingSettings(max_new_tokens=self.max_new_tokens, stop=spec.stop_texts)


def scores(
    prompts: Sequence[EvaluationPrompt],
    replies: Mapping[str, Sample],
) -> list[Score]:
    """All marks of one model."""
    return [mark for prompt in prompts for mark in score(prompt, replies[prompt.key])]


def draw_keys(prompts: Sequence[EvaluationPrompt], wanted: int, seed: int) -> set[str]:
    """So many prompts (0 for all), spread over the families, the same whatever their order."""
    if wanted in range(1, len(prompts)):
        families: dict[str, list[str]] = {}
        for prompt in prompts:
            families.setdefault(prompt.family, []).append(prompt.key)
        return spread(families, wanted, seed)
    return {prompt.key for prompt in prompts}
