"""What people say about replies: choices between two, mended and written replies."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from amenable.records.conversation import Conversation

Choice = Literal["left", "right", "tie", "both_bad"]
CHOICES: tuple[Choice, ...] = get_args(Choice)


class Judged(NamedTuple):
    """A reply as it was judged."""

    text: str
    has_end: bool
    """False for one that was cut off at its limit: it has no end to learn from."""


class Preference(NamedTuple):
    chosen: Judged
    rejected: Judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One person's choice between two replies to one prompt.

    `left` and `right` are the sides of the screen, not model names: sides are shuffled, so that a
    habit of clicking left stays visible.
    """

    prompt: Conversation
    left: Judged
    right: Judged
    choice: Choice
    person: str
    is_simulated: bool
    seconds_spent: float
    mended: str | None = None
    """The better reply as this person mended it: a chosen reply and a demonstration."""
    margin: float = 0.0
    """How much better the chosen reply is, in units of a reward model's score."""
    weight: float = 1.0
    """How much it counts beside others."""

    def preference(self) -> Preference | None:
        """Who won; None for a tie or both bad, which train nothing here yet are counted.

        >>> prompt, left = Conversation.of(("user", "Hi")), Judged("Hello!", has_end=True)
        >>> right = Judged("Hi Hi Hi", has_end=False)
        >>> Comparison(prompt=prompt, left=left, right=right, choice="left", person="Ada",
        ...            is_simulated=False, seconds_spent=4.0).preference().chosen.text
        'Hello!'
        """
        match self.choice:
            case "left":
                return Preference(chosen=self.left, rejected=self.right)
            case "right":
                return Preference(chosen=self.right, rejected=self.left)
            case "tie" | "both_bad":
                return None

    @property
    def teaches(self) -> bool:
        """Whether an order of replies can be learned from it: ties and both bad teach none."""
        return self.preference() is not None or self.mended is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """A judgement on one reply by itself: a thumb up or down."""

    prompt: Conversation
    reply: Judged
    is_good: bool
    is_simulated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """A conversation whose last reply a person wrote or mended."""

    conversation: Conversation
    family: str = ""
    source: str = ""
