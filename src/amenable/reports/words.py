"""Findings in plain sentences that say what was measured and never more."""

from collections.abc import Mapping, Sequence

from amenable.records.check import Check
from amenable.records.measurement import Difference, Row
from amenable.reports.numbers import UNIT_WORDS, interval_text, signed, value_text
from amenable.reports.result import Kind

MAIN = "constraints_met"
IN_WORDS = (
    "ends_by_itself",
    "keeps_to_the_last_turn",
    "perplexity",
    "repetition",
    "win_rate_by_people",
)
CHECK_WORDS = {
    "max_words": "at most {} words",
    "min_words": "at least {} words",
    "exact_words": "exactly {} words",
    "exact_bullets": "exactly {} bullets",
    "exact_sentences": "exactly {} sentences",
    "max_sentences": "at most {} sentences",
    "exact_paragraphs": "exactly {} paragraphs",
    "numbered_items": "{} numbered items",
    "semicolon_list": "{} items on one line, with semicolons",
    "include_words": "uses {}",
    "avoid_words": "avoids {}",
    "json_keys": "JSON with the keys {}",
    "one_of": "only one of {}",
    "starts_with": "starts with {}",
    "ends_with": "ends with {}",
    "last_line_starts_with": "last line starts with {}",
    "lowercase": "all lower case",
    "uppercase": "all upper case",
    "no_commas": "no commas",
    "no_digits": "no digits",
    "quoted": "in double quotes",
    "bracket_title": "a title in square brackets",
}


def check_words(check: Check) -> str:
    """A check as a person would ask for it.

    >>> check_words(Check("max_words", 20)), check_words(Check("avoid_words", ("sea", "salt")))
    ('at most 20 words', 'avoids “sea”, “salt”')
    """
    value = check.value
    if isinstance(value, tuple):
        said = ", ".join(f"“{each}”" for each in value)
    else:
        said = f"“{value}”" if isinstance(value, str) else str(value)
    phrase = CHECK_WORDS.get(check.kind)
    return f"{check.kind}: {said}" if phrase is None else phrase.format(said)


def headline(rows: Sequence[Row], kinds: Mapping[str, Kind]) -> str:
    """The one sentence: the newest version against the better base, and whoever beat it."""
    row = _first(rows, MAIN) or _first(rows, "ends_by_itself")
    if row is None:
        return "Too few prompts to measure a difference."
    subject = subject_of(row, kinds)
    found = next((each for each in row.differences if each.model == subject), None)
    did = "did exactly what was asked in" if row.metric == MAIN else "came to an end in"
    value = value_text(row.values[subject].value, row.unit)
    start = f"Over {row.n} requests, {subject} {did} {value}"
    if found is None:
        return f"{start}; nothing to compare it with was measured."
    other = value_text(row.values[found.against].value, row.unit)
    ends = [signed(end, row.unit) for end in (found.low, found.high)]
    gap = f"{signed(found.value, row.unit)} points, 95 % interval {ends[0]} to {ends[1]}"
    chance = ", which could be chance" if found.could_be_chance else ""
    sentence = f"{start}, {_called(found.against, kinds)} in {other} ({gap}{chance})"
    return sentence + _guest_ahead(row, subject, kinds) + "."


def findings(rows: Sequence[Row], kinds: Mapping[str, Kind]) -> list[str]:
    """The other main results, a sentence each, with interval and n."""
    said: list[str] = []
    for row in sorted(rows, key=lambda row: row.metric != MAIN):
        subject = subject_of(row, kinds)
        mine = [each for each in row.differences if each.model == subject]
        against_base = [each for each in mine if kinds[each.against] in ("base", "helped")]
        against_parent = [each for each in mine if kinds[each.against] == "policy"]
        if row.metric == MAIN:
            said += [finding(row, each) for each in mine]
        elif row.metric in IN_WORDS:
            said += [finding(row, each) for each in against_base or against_parent]
    return said


def finding(row: Row, difference: Difference) -> str:
    """One difference as a sentence."""
    model, against = (
        value_text(row.values[name].value, row.unit)
        for name in (difference.model, difference.against)
    )
    unit = UNIT_WORDS.get(row.unit, "")
    interval = interval_text(difference.low, difference.high, row.unit)
    chance = "; this could be chance" if difference.could_be_chance else ""
    return (
        f"{row.title or row.metric}: {difference.model} {model}, {difference.against} {against} "
        f"({signed(difference.value, row.unit)}{' ' + unit if unit else ''}, "
        f"95 % interval {interval}, n = {row.n}{chance})."
    )


def subject_of(row: Row, kinds: Mapping[str, Kind]) -> str:
    """Whom a row is about: the newest version, else a ready-made model, else the last named."""
    names = list(row.values)
    for kind in ("policy", "instruct"):
        of_kind = [name for name in names if kinds[name] == kind]
        if of_kind:
            return of_kind[-1]
    return names[-1]


def _guest_ahead(row: Row, subject: str, kinds: Mapping[str, Kind]) -> str:
    """A ready-made model that did better is named, whatever the wish."""
    sign = -1 if row.better == "lower" else 1
    mine = sign * row.values[subject].value
    ahead = {
        name: found.value
        for name, found in row.values.items()
        if kinds[name] == "instruct" and name != subject and sign * found.value > mine
    }
    if not ahead:
        return ""
    best = max(ahead, key=lambda name: sign * ahead[name])
    contrast = row.difference(subject, best)
    chance = " (a lead that could be chance)" if contrast and contrast.could_be_chance else ""
    return f"; the ready-made {best} did better, with {value_text(ahead[best], row.unit)}{chance}"


def _called(name: str, kinds: Mapping[str, Kind]) -> str:
    return {
        "base": "the base model as it is",
        "helped": "the base model helped by examples",
        "policy": f"the version before, {name},",
        "instruct": f"the ready-made {name}",
    }[kinds[name]]


def _first(rows: Sequence[Row], metric: str) -> Row | None:
    return next((row for row in rows if row.metric == metric), None)
