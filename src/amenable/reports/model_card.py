"""A model card in Markdown: base and terms, data, training, what was measured, and the limits."""

from collections.abc import Mapping

from amenable.records.measurement import Difference, Row
from amenable.reports.numbers import interval_text, p_text, signed, value_text, verdict
from amenable.reports.result import Lineage, Result

SIMULATED = (
    "Simulated people judged in place of real ones. What this card says of votes and preferences "
    "shows that the loop works, and nothing about what people want."
)
NOT_MEASURED = "## What was measured\n\nNothing yet: no comparison has these weights."
LIMITS = (
    "A small model learns manners from feedback, not knowledge: it can be wrong in a fluent voice.",
    "No test of safety, bias or privacy was made.",
)
LIMITS_OF_FIGURES = (
    "Measured on English requests of the kinds named above; elsewhere nothing is known.",
    "Checks are rules: they see form, not truth, taste or harm.",
)


def model_card(name: str, lineage: Mapping[str, Lineage], result: Result | None) -> str:
    """`lineage` holds the model and what it comes from; `result` its figures, if there are any."""
    mine = lineage[name]
    limits = [*LIMITS, *LIMITS_OF_FIGURES, *_weakest(result, name)] if result else LIMITS
    sections = [
        f"# {_cell(name)}",
        *(_opening(result) if result else ()),
        _facts("What it is", {"trained from": mine.parent or "", **mine.facts}),
        _ancestors(lineage, name),
        *((_measured(result, name), _measuring(result)) if result else (NOT_MEASURED,)),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _opening(result: Result) -> tuple[str, ...]:
    simulated = f"> **Simulated.** {SIMULATED}" if result.simulated_people else ""
    return _cell(result.headline), simulated


def _ancestors(lineage: Mapping[str, Lineage], name: str) -> str:
    """Parent, grandparent …, with the terms that came down from them."""
    said: list[str] = []
    parent = lineage[name].parent
    while parent is not None and parent in lineage and len(said) < len(lineage):
        said.append(_facts(f"From: {_cell(parent)}", lineage[parent].facts))
        parent = lineage[parent].parent
    return "\n\n".join(said)


def _facts(title: str, facts: Mapping[str, str]) -> str:
    lines = [f"- **{_cell(about)}:** {_cell(fact)}" for about, fact in facts.items() if fact]
    return f"## {title}\n\n" + "\n".join(lines) if lines else ""


def _measured(result: Result, name: str) -> str:
    rows = [row for row in result.rows if name in row.values and "/" not in row.metric]
    lines = [
        "| measure | better | n | value (95 % interval) | difference |",
        "| --- | --- | --- | --- | --- |",
        *(_line(row, name) for row in rows),
    ]
    return "## What was measured\n\n" + "\n".join(lines)


def _line(row: Row, name: str) -> str:
    found = row.values[name]
    value = value_text(found.value, row.unit)
    low, high = value_text(found.low, row.unit), value_text(found.high, row.unit)
    said = "; ".join(_difference(row, each) for each in row.differences if each.model == name)
    better = {"neither": "–"}.get(row.better, row.better)
    return (
        f"| {_cell(row.title)} | {better} | {row.n} | {value} ({low} to {high}) | {said or '–'} |"
    )


def _difference(row: Row, found: Difference) -> str:
    return (
        f"{signed(found.value, row.unit)} "
        f"({interval_text(found.low, found.high, row.unit)}; {p_text(found.p)}) "
        f"against {_cell(found.against)}: {verdict(found, row.better)}"
    )


def _measuring(result: Result) -> str:
    settings = result.settings
    return _facts(
        "How it was measured",
        {
            "when": settings.measured_at,
            "prompts": f"{settings.num_prompts}: {settings.prompts_origin}",
            "licence of the prompts": settings.prompts_licence,
            "texts for perplexity": settings.texts_origin,
            "seed": str(settings.seed),
            **settings.decoding,
            "kinds of check also asked for in the demonstrations": ", ".join(
                settings.kinds_also_taught
            ),
            "versions": ", ".join(f"{each} {of}" for each, of in settings.versions.items()),
        },
    )


def _weakest(result: Result, name: str) -> list[str]:
    worst = result.worst_family.get(name)
    if worst is None:
        return []
    share = value_text(worst.measured.value, "share")
    family = worst.family.replace("_", " ")
    return [f"Weakest family of requests here: {family}, {share} of {worst.n} met."]


def _cell(text: str) -> str:
    """Text as text: no line breaks, no table borders, no HTML."""
    flat = " ".join(text.split())
    for mark in ("\\", "|", "*", "_", "`", "[", "<", "#"):
        flat = flat.replace(mark, f"\\{mark}")
    return flat
