"""Marks for single samples: what each metric is, its unit, and which way is better."""

import re
from dataclasses import dataclass

from amenable.evaluation.graders.constraints import all_met, is_met, lines, words
from amenable.evaluation.task import EvaluationPrompt, has_several_turns
from amenable.records.measurement import Better
from amenable.records.sample import Sample
from amenable.records.score import Score

NGRAM = 4
LIST_LINE = re.compile(r"^(?:[-*•] +\S|\d+[.)] +\S)")
# Rough on purpose and said to be so: how a refusal or a plain "I don't know" usually opens.
REFUSAL = re.compile(
    r"\b(?:I(?:'m| am) (?:sorry|not able|unable)"
    r"|I (?:can(?:'t|not)|won't|will not|do(?: not|n't) know|have no way)"
    r"|(?:can(?:'t|not)|won't) help)\b",
    re.IGNORECASE,
)
REFUSAL_OPENING_WORDS = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """`title` is for people; `about` says exactly how the number is made."""

    name: str
    aspect: str
    unit: str
    better: Better
    title: str
    about: str
    is_yes_or_no: bool = False


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="perplexity",
            aspect="primary function",
            unit="perplexity",
            better="lower",
            title="Surprise at plain text",
            about="Perplexity, exp(negative log-likelihood per token), of text that no model here "
            "was trained on by us; comparable only between models with the same tokens.",
        ),
        Metric(
            name="bits_per_byte",
            aspect="primary function",
            unit="bits per byte",
            better="lower",
            title="Bits needed per byte of plain text",
            about="The same text and log-likelihood, divided by bytes instead of tokens, so that "
            "models with different tokenizers can be compared.",
        ),
        Metric(
            name="instructions_met",
            aspect="primary function",
            unit="share",
            better="higher",
            title="Single instructions followed",
            about="Share of the checkable instructions of a request that its reply meets, averaged "
            "over requests.",
        ),
        Metric(
            name="ends_by_itself",
            aspect="user interaction",
            unit="share",
            better="higher",
            is_yes_or_no=True,
            title="Stops when it has answered",
            about="Replies that end before the limit of new tokens; an empty reply does not count. "
            "For the helped base, its stop texts end a reply.",
        ),
        Metric(
            name="keeps_to_the_last_turn",
            aspect="user interaction",
            unit="share",
            better="higher",
            is_yes_or_no=True,
            title="Keeps to the last of several turns",
            about="Constraints met, counted only on requests that stand at the end of a "
            "conversation with earlier replies.",
        ),
        Metric(
            name="constraints_met",
            aspect="content generation",
            unit="share",
            better="higher",
            is_yes_or_no=True,
            title="Does what was asked",
            about="Requests of which every checkable instruction is met, exactly as the rule says "
            "(strict, prompt level); an empty reply meets none.",
        ),
        Metric(
            name="repetition",
            aspect="content generation",
            unit="share",
            better="lower",
            title="Repeats itself",
            about="Share of a reply's runs of four words that stood in it before; replies of fewer "
            "than four words count as 0.",
        ),
        Metric(
            name="win_rate",
            aspect="content generation",
            unit="share",
            better="higher",
            title="Preferred to the base",
            about="Share of requests on which the reply is preferred to that of the base as it is; "
            "a tie counts half, so the base itself stands at one half.",
        ),
        Metric(
            name="win_rate_by_people",
            aspect="content generation",
            unit="share",
            better="higher",
            title="Preferred in blind pairs",
            about="Share of blind pairs of two versions in which people preferred this one; a tie "
            "or both bad counts half.",
        ),
        Metric(
            name="length",
            aspect="content generation",
            unit="words",
            better="neither",
            title="Length of a reply",
            about="Words of a reply, on average; neither more nor fewer is better by itself.",
        ),
        Metric(
            name="lists",
            aspect="content generation",
            unit="share",
            better="neither",
            is_yes_or_no=True,
            title="Replies with a list",
            about="Replies with at least two lines that open with a bullet or a number.",
        ),
        Metric(
            name="refusals",
            aspect="content generation",
            unit="share",
            better="neither",
            is_yes_or_no=True,
            title="Refusals",
            about="Replies whose first words say that it cannot, will not or does not know, found "
            "by a rough rule over English words.",
        ),
    )
}
COMPARED = (
    "instructions_met",
    "ends_by_itself",
    "keeps_to_the_last_turn",
    "constraints_met",
    "repetition",
    "length",
)
TAUGHT = ("length", "lists", "refusals", "ends_by_itself", "constraints_met", "repetition")


def repetition(reply: str) -> float:
    """Share of word 4-grams that stood in the reply before, whatever their case.

    >>> repetition("by the sea by the sea by the sea")  # 6 runs of four words, 3 of them new
    0.5
    """
    found = [word.casefold() for word in words(reply)]
    runs = [tuple(found[at : at + NGRAM]) for at in range(len(found) - NGRAM + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def has_list(reply: str) -> bool:
    """At least two lines that open like list items.

    >>> has_list("Bring:\\n- bread\\n- salt"), has_list("- bread only")
    (True, False)
    """
    return sum(LIST_LINE.match(line) is not None for line in lines(reply)) >= 2


def is_refusal(reply: str) -> bool:
    """Whether the opening says that it cannot, will not or does not know; a rough rule.

    >>> is_refusal("I’m sorry, but I can't help with that."), is_refusal("You can't miss it.")
    (True, False)
    """
    opening = " ".join(reply.replace("’", "'").split()[:REFUSAL_OPENING_WORDS])
    return REFUSAL.search(opening) is not None


def share_of_checks(prompt: EvaluationPrompt, reply: str) -> float:
    return sum(is_met(check, reply) for check in prompt.checks) / len(prompt.checks)


def score(prompt: EvaluationPrompt, sample: Sample) -> list[Score]:
    """Every mark of one sample; what a prompt cannot show (no checks, one turn) is left out."""
    reply = sample.reply
    marks: dict[str, float] = {
        "ends_by_itself": float(sample.ends_by_itself and bool(words(reply))),
        "repetition": repetition(reply),
        "length": float(len(words(reply))),
        "lists": float(has_list(reply)),
        "refusals": float(is_refusal(reply)),
    }
    if prompt.checks:
        marks["instructions_met"] = share_of_checks(prompt, reply)
        marks["constraints_met"] = float(all_met(prompt.checks, reply))
        if has_several_turns(prompt.conversation):
            marks["keeps_to_the_last_turn"] = marks["constraints_met"]
    return [
        Score(metric=metric, key=prompt.key, family=prompt.family, value=value)
        for metric, value in marks.items()
    ]
