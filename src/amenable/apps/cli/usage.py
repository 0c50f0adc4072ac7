"""Words of the command line into a dataclass; what is wrong with them in one line."""

from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

# Marked private, but the one way to say a mistake in a line; tyro's version is pinned exactly.
from tyro import _errors as parse_errors  # pyright: ignore[reportPrivateUsage]

from amenable.apps.cli.out import UsageError

ArgumentsT = TypeVar("ArgumentsT")


def parse(
    arguments: type[ArgumentsT], words: Sequence[str], *, prog: str, about: str
) -> ArgumentsT:
    """Fill the dataclass; --help prints and exits, a mistake is a UsageError."""

    def refuse(event: parse_errors.ParseErrorEvent) -> None:
        raise UsageError(f"{_mistake(event)} See {prog} --help.")

    with parse_errors.on_parse_error(refuse):
        return tyro.cli(
            arguments,
            args=words,
            prog=prog,
            description=about,
            config=(tyro.conf.PositionalMetavarFromFieldName, tyro.conf.DisallowNone),
        )


def _mistake(event: parse_errors.ParseErrorEvent) -> str:
    match event:
        case parse_errors.MissingArgs():
            missing = [each.arg.display_name().upper() for each in event.missing_arguments]
            return f"Missing: {' '.join(missing)}."
        case parse_errors.UnrecognizedArgs():
            return f"Not understood: {' '.join(event.tokens)}."
        case parse_errors.InvalidChoice():
            name, choices = event.argument.display_name(), ", ".join(event.choices)
            return f"{name} is {event.value!r}, but must be one of {choices}."
        case parse_errors.BadValue():
            return f"{event.argument.display_name()} lacks a value."
        case parse_errors.InstantiationFailure():
            return _wrong_value(event)
        case _:
            return "These options do not go together."


def _wrong_value(event: parse_errors.InstantiationFailure) -> str:
    message = " ".join(str(event.message).split()).rstrip(".")
    if event.argument is None:
        return f"{message}."
    wanted: Any = event.argument.field.type_stripped
    kind = {int: "a whole number", float: "a number"}.get(wanted)
    name = event.argument.display_name()
    return f"{name} must be {kind}." if kind else f"{name}: {message}."
