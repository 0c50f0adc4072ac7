"""Checkable constraints, strictly: a reply and a check in, met or not out. No model, no download.

Words are runs of letters, digits and inner apostrophes or hyphens. Sentences end at a run of
`.`, `!` or `?` followed by white space or the end. Lines are stripped before they are looked at.
"""

import json
import re
from collections.abc import Callable, Sequence

from amenable.records.check import Check, CheckValue
from amenable.records.errors import NotFoundError

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)")
BULLET = re.compile(r"^[-*•] +\S")
NUMBERED = re.compile(r"^(\d+)[.)] +\S")
CODE_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\Z", re.DOTALL)


def words(text: str) -> list[str]:
    """Words in order.

    >>> words("Don't stop: it's a well-known song!")
    ["Don't", 'stop', "it's", 'a', 'well-known', 'song']
    """
    return WORD.findall(text)


def sentences(text: str) -> int:
    """How many sentences; text after the last end mark counts as one more.

    >>> sentences("It costs 3.50 euros. Really? Yes")
    3
    """
    ends = list(SENTENCE_END.finditer(text))
    rest = text[ends[-1].end() :] if ends else text
    return len(ends) + (1 if words(rest) else 0)


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def paragraphs(text: str) -> list[str]:
    return [part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]


def contains_word(text: str, wanted: str) -> bool:
    """Whole words, whatever their case.

    >>> contains_word("Seaside air", "sea"), contains_word("By the Sea.", "sea")
    (False, True)
    """
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text, re.IGNORECASE) is not None


def _number(value: CheckValue) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"this check needs a whole number, not {value!r}")
    return value


def _strings(value: CheckValue) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, tuple):
        return value
    raise ValueError(f"this check needs words, not {value!r}")


def _text(value: CheckValue) -> str:
    if not isinstance(value, str):
        raise ValueError(f"this check needs a text, not {value!r}")
    return value


def _json_keys(reply: str, value: CheckValue) -> bool:
    fenced = CODE_FENCE.match(reply)
    try:
        found = json.loads(fenced.group(1) if fenced else reply)
    except (ValueError, RecursionError):  # ValueError also for a number of thousands of digits
        return False
    return isinstance(found, dict) and set(found) == set(_strings(value))


def _numbered_items(reply: str, value: CheckValue) -> bool:
    numbers = [int(match.group(1)) for line in lines(reply) if (match := NUMBERED.match(line))]
    return numbers == list(range(1, _number(value) + 1))


def _bullets(reply: str, value: CheckValue) -> bool:
    return sum(BULLET.match(line) is not None for line in lines(reply)) == _number(value)


def _one_of(reply: str, value: CheckValue) -> bool:
    return reply.strip().rstrip(".").casefold() in {each.casefold() for each in _strings(value)}


def _quoted(reply: str, _: CheckValue) -> bool:
    return len(reply) > 2 and reply[0] in '"“' and reply[-1] in '"”'


def _semicolon_list(reply: str, value: CheckValue) -> bool:
    items = [item for item in reply.strip().rstrip(".").split(";") if words(item)]
    return len(lines(reply)) == 1 and len(items) == _number(value)


def _bracket_title(reply: str, _: CheckValue) -> bool:
    found = lines(reply)
    return len(found) > 1 and re.fullmatch(r"\[[^\[\]]+\]", found[0]) is not None


Grader = Callable[[str, CheckValue], bool]

# Kinds that only evaluation prompts ask for; kinds that only feedback prompts ask for. They are
# disjoint, so that what people's votes taught is measured on requests they were never shown.
EVALUATION_KINDS: dict[str, Grader] = {
    "max_words": lambda reply, value: len(words(reply)) <= _number(value),
    "exact_bullets": _bullets,
    "include_words": lambda reply, value: all(contains_word(reply, w) for w in _strings(value)),
    "avoid_words": lambda reply, value: not any(contains_word(reply, w) for w in _strings(value)),
    "lowercase": lambda reply, _: reply == reply.lower(),
    "json_keys": _json_keys,
    "starts_with": lambda reply, value: reply.startswith(_text(value)),
    "exact_sentences": lambda reply, value: sentences(reply) == _number(value),
    "one_of": _one_of,
    "last_line_starts_with": lambda reply, value: lines(reply)[-1].startswith(_text(value)),
}
FEEDBACK_KINDS: dict[str, Grader] = {
    "numbered_items": _numbered_items,
    "max_sentences": lambda reply, value: sentences(reply) <= _number(value),
    "uppercase": lambda reply, _: reply == reply.upper(),
    "no_commas": lambda reply, _: "," not in reply,
    "quoted": _quoted,
    "ends_with": lambda reply, value: reply.endswith(_text(value)),
    "exact_paragraphs": lambda reply, value: len(paragraphs(reply)) == _number(value),
    "min_words": lambda reply, value: len(words(reply)) >= _number(value),
    "semicolon_list": _semicolon_list,
    "no_digits": lambda reply, _: not any(letter.isdigit() for letter in reply),
    "bracket_title": _bracket_title,
    "exact_words": lambda reply, value: len(words(reply)) == _number(value),
}
GRADERS = EVALUATION_KINDS | FEEDBACK_KINDS


def is_met(check: Check, reply: str) -> bool:
    """Whether the reply meets the check; an empty reply meets none.

    >>> is_met(Check("exact_bullets", 2), "- one\\n- two")
    True
    """
    if check.kind not in GRADERS:
        raise NotFoundError("check", check.kind, known=GRADERS)
    reply = reply.strip()
    return bool(words(reply)) and GRADERS[check.kind](reply, check.value)


def all_met(checks: Sequence[Check], reply: str) -> bool:
    return all(is_met(check, reply) for check in checks)
