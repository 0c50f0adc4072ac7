"""Errors written for their reader: what is wrong, with which value, and what would be right.

AmenableError                 the command line prints it in one line, a page shows it as a notice
├── ConfigError               a knob outside its range
├── NotFoundError             a name that nothing bears
├── NotAllowedError           a right this person does not have
├── ConflictError             it was already done, or done differently
├── DataError                 a file that cannot be what it claims
├── ModelError                a model that is missing, broken or of an unknown kind
├── WorkspaceError            the workspace is full, busy, broken or too new
└── CannotStartError          a door is closed: port in use, no display, no licence accepted
"""

from collections.abc import Iterable


class AmenableError(Exception):
    """Base of all errors meant for people; everything else is a bug and keeps its traceback."""


class ConfigError(AmenableError):
    def __init__(self, field: str, value: object, must: str) -> None:
        super().__init__(f"{field} is {value!r}, but must {must}.")
        self.field, self.value, self.must = field, value, must

    def within(self, group: str) -> "ConfigError":
        """The same of a knob in a group of knobs: "fit.num_epochs"."""
        return ConfigError(f"{group}.{self.field}", self.value, self.must)


class NotFoundError(AmenableError):
    def __init__(self, kind: str, key: object, known: Iterable[str] = ()) -> None:
        choices = ", ".join(sorted(known))
        super().__init__(f"There is no {kind} {key!r}." + (choices and f" There are: {choices}."))


class NotAllowedError(AmenableError): ...


class ConflictError(AmenableError): ...


class DataError(AmenableError): ...


class ModelError(AmenableError): ...


class WorkspaceError(AmenableError): ...


class CannotStartError(AmenableError): ...
