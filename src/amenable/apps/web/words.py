"""Numbers, names and moments as people say them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

DEFAULT_WORKSPACE = Path("amenable-workspace")

STAGE_TITLES = {
    "prepare": "Fetch the base model",
    "pretrain": "Pretrain",
    "finetune": "Finetune",
    "sample": "Write replies to judge",
    "align": "Improve",
    "reward": "Train a reward model",
    "compare": "Compare",
    "export": "Export",
}
ROLE_WORDS = {
    "pairs": "{} pairs",
    "comparisons": "votes",
    "demonstrations": "{} demonstrations",
    "blind": "{} blind pairs",
    "judged": "{} judged",
    "newest_vote": "",
    "headline": "a report",  # a sentence is for its own page
    "left_out": "{} left out",
    "displaced": "chosen replies became {} nats less likely: weigh imitation more",
    "cut": "{} cut at their end",
    "longer": "chosen replies {} tokens longer",
    "shorter": "chosen replies {} tokens shorter",
    "texts": "{} texts",
    "held_out": "{} held out",
    "empty": "{} empty",
    "vocabulary": "a vocabulary of {}",
    "bits_before": "{} bits per byte before",
    "bits_per_byte": "{} bits per byte",
    "imported": "{} imported",
    "equal": "{} of equal replies",
    "alike": "{} pairs too alike for the parent to tell apart",
    "thumbs": "{} thumbs",
    "accuracy": "right on {}",
    "choices_held_out": "of {} choices held out",
    "longer_wins": "the longer reply is chosen on {}",
    "both_bad": "{} both bad",
}
"""What a run's inputs and outputs hold, where it is no name."""
TYPE_WORDS = {
    "conversation": "demonstrations",
    "prompt": "prompts",
    "preference": "preference pairs",
    "ranking": "rankings",
    "rated": "thumbs",
    "text": "plain text",
}
VOICES = {"base": "base", "policy": "instruct", "instruct": "other", "hybrid": "hybrid"}


def thousands(number: float) -> str:
    """Groups of three, by a thin space.

    >>> thousands(1234567), thousands(12)
    ('1\u202f234\u202f567', '12')
    """
    return f"{number:,.0f}".replace(",", "\u202f")


def duration(seconds: float | None) -> str:
    """How long, as short as is useful.

    >>> duration(42), duration(95), duration(1500), duration(7320), duration(None)
    ('42 s', '1 min 35 s', '25 min', '2 h 2 min', '–')
    """
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def about(seconds: float) -> str:
    """A cost in time, said as roughly as it is known.

    >>> about(40), about(200), about(700), about(9000)
    ('less than a minute', 'about 3 minutes', 'about 12 minutes', 'about 2.5 hours')
    """
    if seconds < 60:
        return "less than a minute"
    minutes = round(seconds / 60)
    if minutes < 90:
        return "about a minute" if minutes == 1 else f"about {minutes} minutes"
    return f"about {seconds / 3600:.1f} hours"


def size(num_bytes: float | None) -> str:
    """Bytes in the unit that makes the number readable.

    >>> size(536_870_912), size(2.5e9), size(None)
    ('537 MB', '2.5 GB', '–')
    """
    if num_bytes is None:
        return "–"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            amount = num_bytes / scale
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{num_bytes:.0f} bytes"


def parameters(number: float | None) -> str:
    """How large a network is.

    >>> parameters(268_098_176), parameters(1.5e9), parameters(None)
    ('268 million', '1.5 billion', 'an unknown number of')
    """
    if number is None:
        return "an unknown number of"
    if number >= 1e9:
        return f"{number / 1e9:.1f} billion"
    return f"{number / 1e6:.0f} million"


def moment(when: datetime | None) -> str:
    """How long ago, or the day."""
    if when is None:
        return "–"
    seconds = (datetime.now(UTC) - when).total_seconds()
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < 86_400:
        return f"{seconds // 3600:.0f} h ago"
    return f"{when.day} {when:%b %Y}"


def plain(name: str) -> str:
    """An identifier as words.

    >>> plain("open_question"), plain("policy_1")
    ('open question', 'policy 1')
    """
    return name.replace("_", " ")


def shorten(text: str, length: int = 60) -> str:
    """One line of at most `length` letters.

    >>> shorten("a long name of a model", 12)
    'a long name…'
    """
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def show_space(text: str) -> str:
    """A token's white space, made visible.

    >>> show_space(" the\\n")
    '·the⏎\\n'
    """
    return text.replace(" ", "·").replace("\n", "⏎\n") if text else "∅"


def again(command: str, workspace: Path) -> str:
    """A command to type, with the workspace if it is not the usual one.

    >>> again("runs list", Path("amenable-workspace")), again("start", Path("/data/ours"))
    ('amenable runs list', 'amenable start --workspace /data/ours')
    """
    if workspace.absolute() == DEFAULT_WORKSPACE.absolute():
        return f"amenable {command}"
    return f"amenable {command} --workspace {workspace}"


def roles(found: Mapping[str, str]) -> str:
    """What went in or came out, in a few words; a role may hold several names, by commas.

    >>> roles({"model": "m-2", "judged": "24", "newest_vote": "311"})
    'm-2, 24 judged'
    """
    texts = [
        ROLE_WORDS.get(role, "{}").format(name.replace(",", ", ")) for role, name in found.items()
    ]
    return ", ".join(text for text in texts if text) or "–"


def names(found: Mapping[str, str]) -> dict[str, str]:
    """Those roles that hold names, and not how many or how much.

    >>> names({"model": "m-2", "judged": "24"})
    {'model': 'm-2'}
    """
    return {role: name for role, name in found.items() if role not in ROLE_WORDS}
