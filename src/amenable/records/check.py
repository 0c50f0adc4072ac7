"""A request that can be checked by rule: what a reply must satisfy, beside what it says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

type_error = "a check is an object with 'kind' and 'value'"

CheckValue = int | str | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One checkable constraint of a prompt; `kind` names a grader in evaluation/graders.

    >>> Check.from_json({"kind": "include_words", "value": ["sea", "salt"]})
    Check(kind='include_words', value=('sea', 'salt'))
    """

    kind: str
    value: CheckValue

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Self:
        kind, value = data.get("kind"), data.get("value")
        if not isinstance(kind, str):
            raise ValueError(type_error)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return cls(kind, tuple(value))
        if isinstance(value, (bool, int, str)):
            return cls(kind, value)
        raise ValueError(type_error)

    def to_json(self) -> dict[str, object]:
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return {"kind": self.kind, "value": value}
