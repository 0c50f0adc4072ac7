"""Which models stand side by side: name, chat form used, and what they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from amenable.chat.template import chat_form

HELPED_SUFFIX = " (helped)"
"""A base, shown three examples: the same weights under a second name."""

SpecKind = Literal["base", "helped", "policy", "instruct"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One column of a comparison.

    A base model appears twice: `base` is the model as it is, in plain text; `helped` is the same
    weights with three fixed examples before the request and texts that stop it, since chat markers
    it never saw would make it look worse than it is.
    """

    name: str
    kind: SpecKind
    form: str
    """The chat form it is spoken to in; empty for a guest, whose address knows."""
    parent: str | None = None
    is_simulated: bool = False
    """Whether judgements of scripted judges went into it."""
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    """Its lineage in words: origin, licence, how it was trained, on what, for how long."""

    @property
    def stop_texts(self) -> tuple[str, ...]:
        return chat_form(self.form).stop_texts if self.form else ()

    @property
    def is_base(self) -> bool:
        return self.kind in ("base", "helped")


def helped(base: ModelSpec) -> ModelSpec:
    """The same base with examples and stop texts.

    >>> helped(ModelSpec(name="gemma", kind="base", form="plain")).name
    'gemma (helped)'
    """
    return ModelSpec(
        name=base.name + HELPED_SUFFIX,
        kind="helped",
        form="helped",
        parent=base.parent,
        facts=base.facts,
    )


def first_base(specs: Sequence[ModelSpec]) -> ModelSpec | None:
    return next((spec for spec in specs if spec.kind == "base"), None)


def anchors(specs: Sequence[ModelSpec]) -> list[str]:
    """What everything is measured against: the first base in both forms, else the first model."""
    base = first_base(specs)
    if base is None:
        return [specs[0].name]
    pair = (base.name, base.name + HELPED_SUFFIX)
    return [spec.name for spec in specs if spec.name in pair]


def newest_policy(specs: Sequence[ModelSpec]) -> ModelSpec | None:
    """The last version trained here, in the order given."""
    return next((spec for spec in reversed(specs) if spec.kind == "policy"), None)
