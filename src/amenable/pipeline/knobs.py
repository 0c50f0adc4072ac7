"""A stage's config from the plain dictionary that a Run keeps, checked as it is read."""

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from amenable.records.errors import ConfigError

ConfigT = TypeVar("ConfigT")


def read_config(kind: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Fill a config dataclass; what is not given keeps its default, what is unknown is refused.

    >>> from amenable.pipeline.config import AlignConfig
    >>> read_config(AlignConfig, {"preference": {"beta": 0.2}}).preference.beta
    0.2
    """
    return cast("ConfigT", _filled(kind(), values))


def _filled(default: Any, values: Mapping[str, Any]) -> Any:
    """A group keeps the defaults that its owner gives it: Improve learns slower than finetuning."""
    hints = typing.get_type_hints(type(default))
    known = {each.name for each in fields(default)}
    for name in values:
        if name not in known:
            raise ConfigError(name, values[name], must=f"be one of {', '.join(sorted(known))}")
    given = {
        name: _read(name, hints[name], value, getattr(default, name))
        for name, value in values.items()
    }
    return replace(default, **given)


def _read(name: str, hint: Any, value: Any, default: Any) -> Any:
    if is_dataclass(hint):
        return _read_group(name, value, default)
    if typing.get_origin(hint) is typing.Literal:
        if value not in typing.get_args(hint):
            raise ConfigError(name, value, must=f"be one of {', '.join(typing.get_args(hint))}")
        return value
    wanted = _plain_types(hint)
    if isinstance(value, bool) and bool not in wanted:
        raise ConfigError(name, value, must="be a number or text")
    if isinstance(value, int) and float in wanted:
        return float(value)
    if not isinstance(value, wanted) or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(name, value, must=f"be {' or '.join(kind.__name__ for kind in wanted)}")
    return value


def _read_group(name: str, value: Any, default: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(name, value, must="be a group of knobs")
    try:
        return _filled(default, cast("Mapping[str, Any]", value))
    except ConfigError as error:
        raise error.within(name) from None


def _plain_types(hint: Any) -> tuple[type, ...]:
    if isinstance(hint, types.UnionType):
        return tuple(cast("type", each) for each in typing.get_args(hint))
    return (cast("type", hint),)
