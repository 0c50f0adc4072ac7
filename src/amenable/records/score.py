"""A grader's mark for one sample."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """`key` names the prompt, so that two models can be compared prompt by prompt."""

    metric: str
    key: str
    family: str
    value: float
