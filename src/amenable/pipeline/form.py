"""A config as a form: its knobs with their sentences, and what was typed into it as values."""

import ast
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from decimal import Decimal
from functools import cache
from itertools import pairwise
from typing import Any, Literal, TypeVar

from amenable.pipeline.knobs import read_config
from amenable.records.errors import AmenableError, ConfigError

ConfigT = TypeVar("ConfigT")
Entry = Literal["choice", "integer", "number", "switch", "text"]
ENTRIES: dict[type, Entry] = {bool: "switch", int: "integer", float: "number", str: "text"}
MOST_LETTERS = 100
"""Of one field."""
ON = "yes"
"""What a switch sends; one that is off sends nothing, as browsers do."""
WHOLE_WORDS = {
    "num": "number of",
    "max": "maximum",
    "grad": "gradient",
    "sft": "imitation",
    "lora": "LoRA",
}
"""Short forms in the names of knobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One field of a form.

    `name` is the way to it through the groups: "fit.num_epochs". `least` is the smallest number
    that its config takes, where there is one. An optional knob may be left empty.
    """

    name: str
    label: str
    sentence: str
    entry: Entry
    default: str | float | None
    options: tuple[str, ...] = ()
    least: float | None = None
    is_optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A config, or a config within another, with the defaults that its owner gives it."""

    name: str
    sentence: str
    parts: tuple["Knob | Group", ...]

    def knobs(self) -> Iterator[Knob]:
        """All of them, also those of groups within."""
        for part in self.parts:
            if isinstance(part, Knob):
                yield part
            else:
                yield from part.knobs()

    def groups(self) -> Iterator["Group"]:
        """This one and all within."""
        yield self
        for part in self.parts:
            if isinstance(part, Group):
                yield from part.groups()


class FormError(AmenableError):
    """What cannot be taken of a form: by field, what it must be."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = problems
        super().__init__(" ".join(f"{name} must {must}." for name, must in problems.items()))


@cache
def knobs(kind: type[Any]) -> Group:
    """What can be set in a config.

    >>> from amenable.pipeline.config import FinetuneConfig
    >>> next(each.label for each in knobs(FinetuneConfig).knobs() if each.name == "lora.rank")
    'Rank'
    """
    return _group("", "", kind())


def _group(name: str, sentence: str, owner: Any) -> Group:
    hints = typing.get_type_hints(type(owner))
    said = sentences(type(owner))
    parts: list[Knob | Group] = []
    for each in fields(owner):
        path = f"{name}.{each.name}" if name else each.name
        default = getattr(owner, each.name)
        if is_dataclass(default):
            parts.append(_group(path, said[each.name], default))
        else:
            parts.append(_knob(path, said[each.name], hints[each.name], owner))
    return Group(name=name, sentence=sentence, parts=tuple(parts))


def _knob(path: str, sentence: str, hint: Any, owner: Any) -> Knob:
    name = path.rpartition(".")[2]
    default = getattr(owner, name)
    if typing.get_origin(hint) is Literal:
        options, entry, is_optional = typing.get_args(hint), "choice", False
    else:
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        options, is_optional = (), type(None) in kinds
        entry = ENTRIES[next(each for each in kinds if each is not type(None))]
    return Knob(
        name=path,
        label=label_of(name),
        sentence=sentence,
        entry=entry,
        default=default,
        options=options,
        least=_least(owner, name) if entry in ("integer", "number") else None,
        is_optional=is_optional,
    )


def label_of(name: str) -> str:
    """The name of a knob in words.

    >>> label_of("num_epochs"), label_of("max_grad_norm")
    ('Number of epochs', 'Maximum gradient norm')
    """
    words = " ".join(WHOLE_WORDS.get(word, word) for word in name.split("_"))
    return words[:1].upper() + words[1:]


@cache
def sentences(kind: type[Any]) -> Mapping[str, str]:
    """The sentence under each field, which no program keeps at run time but the source does."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for node, after in pairwise(body.body):
        match node, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(said))),
            ):
                found[name] = " ".join(said.split())
            case _:
                pass
    return found


def _least(owner: Any, name: str) -> float | None:
    """The bound is asked of the config itself, so that it is declared once.

    Of whole numbers it is exact; of others it is 0 where nothing below is taken.
    """

    def takes(value: float) -> bool:
        try:
            replace(owner, **{name: value})
        except ConfigError:
            return False
        return True

    if takes(-1):
        return None
    default = getattr(owner, name)
    return _first_taken(takes, default) if isinstance(default, int) else 0.0


def _first_taken(takes: Callable[[int], bool], taken: int) -> int:
    """Between -1, which is refused, and a number that is taken."""
    refused = -1
    while taken - refused > 1:
        middle = (taken + refused) // 2
        if takes(middle):
            taken = middle
        else:
            refused = middle
    return taken


def shown(value: str | float | None) -> str:
    """As it stands in a field; read again, it is the same value.

    >>> shown(5e-5), shown(32.0), shown(None), shown(True)
    ('0.00005', '32', '', 'yes')
    """
    match value:
        case None | False:
            return ""
        case True:
            return ON
        case float():
            plain = f"{Decimal(repr(value)):f}".removesuffix(".0")
            return plain if len(plain) <= 20 else repr(value)
        case _:
            return str(value)


def typed(config: Any) -> dict[str, str]:
    """The fields that a browser would send for this config."""

    def value(name: str) -> Any:
        found = config
        for part in name.split("."):
            found = getattr(found, part)
        return found

    texts = {each.name: (each, shown(value(each.name))) for each in knobs(type(config)).knobs()}
    return {name: text for name, (knob, text) in texts.items() if text or knob.entry != "switch"}


def config_of(kind: type[ConfigT], texts: Mapping[str, str]) -> ConfigT:
    """What was typed, as a config; all that cannot be is named at once, each by its field."""
    problems: dict[str, str] = {}
    while True:
        # A config names its first mistake alone: the next shows once that one is left out.
        left = {name: text for name, text in texts.items() if name not in problems}
        found: Mapping[str, str] = {}
        try:
            config = read_config(kind, values_of(kind, left))
        except FormError as error:
            found = error.problems
        except ConfigError as error:
            found = {error.field: error.must}
        else:
            if not problems:
                return config
        if found.keys() <= problems.keys():
            raise FormError(problems)
        problems |= found


def values_of(kind: type[Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """Fields of a form as the dictionary that `read_config` takes.

    What was not sent keeps its default, but a switch that was not sent is off.

    >>> from amenable.pipeline.config import FinetuneConfig
    >>> values_of(FinetuneConfig, {"fit.num_epochs": "5"})
    {'train_marker_rows': False, 'fit': {'num_epochs': 5}}
    """
    known = {knob.name: knob for knob in knobs(kind).knobs()}
    problems = {name: "be a knob of this form" for name in texts if name not in known}
    values: dict[str, Any] = {}
    for name, knob in known.items():
        if name in texts or knob.entry == "switch":
            try:
                _put(values, name, _read(knob, texts.get(name, "")))
            except ValueError as error:
                problems[name] = str(error)
    if problems:
        raise FormError(problems)
    return values


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    *groups, last = name.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[last] = value


def _read(knob: Knob, text: str) -> Any:
    """The value; a ValueError says what it must be."""
    if len(text) > MOST_LETTERS:
        raise ValueError(f"have at most {MOST_LETTERS} letters")
    text = text.strip()
    if not text and knob.is_optional:
        return None
    match knob.entry:
        case "switch":
            return _switch(text)
        case "choice":
            return _choice(text, knob.options)
        case "integer":
            return _number(text, int, "a whole number")
        case "number":
            return _number(text, float, "a number")
        case "text":
            return text


def _switch(text: str) -> bool:
    if text not in ("", ON):
        raise ValueError("be on or off")
    return text == ON


def _choice(text: str, options: tuple[str, ...]) -> str:
    if text not in options:
        raise ValueError(f"be one of {', '.join(options)}")
    return text


def _number(text: str, read: type[int] | type[float], called: str) -> float:
    try:
        value = read(text)
    except ValueError:
        raise ValueError(f"be {called}") from None
    if not math.isfinite(value):
        raise ValueError(f"be {called}")
    return value
