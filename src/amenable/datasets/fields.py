"""What a reader asks of a raw row: text, turns, yes or no; a refusal says what was expected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amenable.datasets.strict import Limits, RowError, parse_json, shown, text_problem
from amenable.records.check import Check
from amenable.records.conversation import Conversation, Message, Role

ROLE_OF: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}
TURN_FORMS = (("role", "content"), ("from", "value"))
YES_NO = {"true": True, "false": False, "1": True, "0": False}
NAMES_OF_TYPES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
}


def describe(value: object) -> str:
    """The JSON type of a value, in words.

    >>> describe([1]), describe(None), describe(2)
    ('a list', 'null', 'a number')
    """
    if value is None:
        return "null"
    return NAMES_OF_TYPES.get(type(value), "a number")


@dataclass(frozen=True, slots=True)
class Fields:
    """One raw row; in a CSV file every value is text, and lists are JSON in a cell."""

    values: Mapping[str, object]
    is_csv: bool = False

    def has(self, key: str) -> bool:
        """Whether something stands there; null, and in a CSV file an empty cell, is nothing."""
        value = self.values.get(key)
        return value is not None and not (self.is_csv and value == "")

    def text(self, key: str, expected: str = "text") -> str:
        """A text with something in it."""
        value = self._present(key, expected)
        if not isinstance(value, str):
            raise RowError(key, f"is {describe(value)}, expected {expected}")
        return checked_text(key, value)

    def optional_text(self, key: str) -> str:
        """Like `text`, but nothing there is an empty text."""
        value = self.values.get(key)
        return "" if value is None or value == "" else self.text(key)

    def name(self, key: str) -> str:
        """A short name or number as text; empty if there is none."""
        value = self.values.get(key)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise RowError(key, f"is {describe(value)}, expected a name")
        text = str(value)
        if problem := text_problem(text):
            raise RowError(key, problem)
        if len(text) > 100:
            raise RowError(key, "is longer than 100 characters, expected a name")
        return text

    def flag(self, key: str) -> bool:
        value = self._present(key, "true or false")
        if self.is_csv and isinstance(value, str) and value.lower() in YES_NO:
            return YES_NO[value.lower()]
        if not isinstance(value, bool):
            raise RowError(key, f"is {describe(value)}, expected true or false")
        return value

    def number(self, key: str, *, usual: float, least: float, most: float) -> float:
        """A number within bounds; the usual one where nothing stands."""
        if not self.has(key):
            return usual
        value = self.values[key]
        if self.is_csv and isinstance(value, str):
            value = _number(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RowError(key, f"is {describe(value)}, expected a number")
        if not least <= value <= most:
            raise RowError(key, f"is {value}, expected a number from {least:g} to {most:g}")
        return float(value)

    def items(self, key: str, expected: str) -> Sequence[object]:
        """A list with something in it."""
        value = self._unpacked(key, expected, openings=("[",))
        if not isinstance(value, list):
            raise RowError(key, f"is {describe(value)}, expected {expected}")
        if not value:
            raise RowError(key, f"is an empty list, expected {expected}")
        return value

    def turns(self, key: str) -> Conversation:
        """Messages of role and content (or from and value), of which somebody speaks first."""
        expected = "a list of turns, each with 'role' and 'content'"
        listed = self.items(key, expected)
        return in_order(key, [turn(key, each, f"turn {n}") for n, each in enumerate(listed, 1)])

    def text_or_turns(self, key: str) -> str | tuple[Message, ...]:
        """A text; or turns, whoever speaks first; or one turn."""
        value = self._unpacked(key, "text or turns")
        if isinstance(value, dict):
            return (turn(key, value, "the turn"),)
        if isinstance(value, list) and value:
            return tuple(turn(key, each, f"turn {n}") for n, each in enumerate(value, 1))
        return self.text(key, "text or turns")

    def checks(self) -> tuple[Check, ...]:
        if not self.has("checks"):
            return ()
        value = self._unpacked("checks", "a list of checks")
        if not isinstance(value, list):
            raise RowError("checks", f"is {describe(value)}, expected a list of checks")
        return tuple(_check(each, position) for position, each in enumerate(value, 1))

    def _present(self, key: str, expected: str) -> object:
        if not self.has(key):
            raise RowError(key, self._absence(key, expected))
        return self.values[key]

    def _absence(self, key: str, expected: str) -> str:
        if key in self.values:
            found = "is null" if self.values[key] is None else "is empty"
            return f"{found}, expected {expected}"
        keys = ", ".join(shown(name) for name in list(self.values)[:10])
        return f"is missing, expected {expected}; the row has {keys or 'no keys'}"

    def _unpacked(
        self, key: str, expected: str, openings: tuple[str, ...] = ("[{", "[[", "{", "[]")
    ) -> object:
        """The value; JSON in a cell of a CSV file is read, told from plain text by its opening."""
        value = self._present(key, expected)
        if not (self.is_csv and isinstance(value, str) and value.startswith(openings)):
            return value
        try:
            return parse_json(value.encode("utf-8", "surrogatepass"), Limits())
        except RowError as error:
            raise RowError(key, f"{error.reason} (in the cell)") from None


def _number(text: str) -> float | str:
    """In a cell of a CSV file; the text itself where it is none."""
    try:
        return float(text)
    except ValueError:
        return text


def checked_text(key: str, text: str, what: str = "") -> str:
    """The text itself, if it can be kept and says something."""
    prefix = f"{what} " if what else ""
    if problem := text_problem(text):
        raise RowError(key, prefix + problem)
    if not text.strip():
        raise RowError(key, f"{prefix}is empty, expected some text")
    return text


def turn(key: str, value: object, what: str) -> Message:
    """One message in OpenAI's or ShareGPT's form."""
    if not isinstance(value, dict):
        raise RowError(
            key, f"{what} is {describe(value)}, expected an object with 'role' and 'content'"
        )
    form = next((form for form in TURN_FORMS if form[0] in value), None)
    if form is None:
        raise RowError(key, f"{what} has no 'role' (nor 'from')")
    role = value[form[0]]
    if not isinstance(role, str) or role not in ROLE_OF:
        known = ", ".join(ROLE_OF)
        raise RowError(key, f"{what} has the role {str(role)[:40]!r}, expected one of {known}")
    return Message(ROLE_OF[role], _said(key, value.get(form[1]), f"{what}, {form[1]!r},"))


def in_order(key: str, messages: Sequence[Message]) -> Conversation:
    """A conversation in which everybody speaks in turn; a system message without words is none."""
    if messages and messages[0].role == "system" and not messages[0].text.strip():
        messages = messages[1:]
    conversation = Conversation(tuple(messages))
    if problem := conversation.problem():
        raise RowError(key, problem)
    for position, message in enumerate(conversation.messages, 1):
        checked_text(key, message.text, f"turn {position}")
    return conversation


def prompt_of(key: str, conversation: Conversation) -> Conversation:
    """A conversation that waits for a reply."""
    if conversation.messages[-1].role != "user":
        raise RowError(key, "the last turn is the assistant's, expected the user's")
    return conversation


def demonstration_of(key: str, conversation: Conversation) -> Conversation:
    """A conversation that ends with a reply."""
    if conversation.messages[-1].role != "assistant":
        raise RowError(key, "the last turn is the user's, expected the assistant's reply")
    return conversation


def _said(key: str, content: object, what: str) -> str:
    """Text, or a list of parts that are all text."""
    if isinstance(content, list):
        return "".join(_part(key, part, what) for part in content)
    if not isinstance(content, str):
        raise RowError(key, f"{what} is {describe(content)}, expected text")
    if problem := text_problem(content):
        raise RowError(key, f"{what} {problem}")
    return content


def _part(key: str, part: object, what: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return _said(key, part["text"], what)
    raise RowError(key, f"{what} has a part that is not text (images and sounds are not read)")


def _check(value: object, position: int) -> Check:
    try:
        if isinstance(value, dict):
            return Check.from_json(value)
    except ValueError as error:
        raise RowError("checks", f"check {position}: {error}") from None
    raise RowError("checks", f"check {position} is {describe(value)}, expected an object")
