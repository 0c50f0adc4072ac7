"""Prompts worth trying: from the kinds of task measured best, and one honest failure."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from amenable.apps.web import queries, report_view, words
from amenable.evaluation.graders.constraints import all_met
from amenable.records.check import Check

NUM_BEST = 4
LONGEST = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    text: str
    says: str
    is_failure: bool = False


@dataclass(frozen=True, slots=True)
class Suggestions:
    says: str
    prompts: Sequence[Suggestion]


# Before anything is measured: short requests of the kinds that small models learn first.
UNMEASURED = Suggestions(
    "Try one of these. Nothing is measured yet; afterwards this list comes from the results.",
    (
        Suggestion(text="Write a short poem about the sea.", says="write"),
        Suggestion(
            text="Sort these into fruit and vegetables: pear, leek, plum, carrot.", says="classify"
        ),
        Suggestion(
            text="Make this friendlier: Send me the file today or the order is cancelled.",
            says="rewrite",
        ),
        Suggestion(text="Give me three ideas for a rainy Sunday.", says="brainstorm"),
        Suggestion(
            text="Who won the chess tournament in my village last week?",
            says="nobody can know this; a small model may invent an answer",
            is_failure=True,
        ),
    ),
)


def suggestions(session: Session, comparing: queries.Comparing | None, model: str) -> Suggestions:
    if comparing is None or not model:
        return UNMEASURED
    replies = [
        reply
        for reply in queries.compared_replies(session, comparing.run.id, model)
        if len(reply.prompt) == 1 and len(reply.prompt[0]["content"]) <= LONGEST and reply.checks
    ]
    shares = _shares(comparing, model)
    met = [reply for reply in replies if _is_met(reply)]
    best = list(shares)
    prompts = [
        Suggestion(
            text=reply.prompt[0]["content"],
            says=f"{words.plain(family)}: {100 * shares[family]:.0f} % of such instructions met",
        )
        for family in best
        if (reply := next((each for each in met if each.family == family), None))
    ][:NUM_BEST]
    failed = next(
        (
            each
            for family in reversed(best)
            for each in replies
            if each.family == family and not _is_met(each)
        ),
        None,
    )
    if failed:
        prompts.append(
            Suggestion(
                text=failed.prompt[0]["content"],
                says=f"it failed this one ({words.plain(failed.family)}): see for yourself",
                is_failure=True,
            )
        )
    if not prompts:
        return UNMEASURED
    return Suggestions(f"From the kinds of task that {model} was measured best at.", prompts)


def _shares(comparing: queries.Comparing, model: str) -> dict[str, float]:
    rows = report_view.family_rows(comparing.result, model)
    return {report_view.family_of(row): row.values[model].value for row in rows}


def _is_met(reply: queries.ReadPrompt) -> bool:
    return reply.stop_reason == "stop" and all_met(
        [Check.from_json(check) for check in reply.checks], reply.reply
    )
