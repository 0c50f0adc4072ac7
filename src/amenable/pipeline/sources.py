"""Which demonstrations and prompts a workspace trains with: the starter set, one's own, or both."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from amenable.datasets.examples import ConversationExample, PromptExample
from amenable.feedback import export
from amenable.records.conversation import Conversation, Message
from amenable.records.errors import ConfigError, DataError, NotFoundError
from amenable.starter import load as starter
from amenable.starter.load import STARTER_LICENCE, fingerprint
from amenable.store import library, settings
from amenable.store.artifacts import write_whole
from amenable.store.library import DatasetEntry
from amenable.store.tables import ExampleRow
from amenable.store.workspace import Workspace
from amenable.training.mixture import Share

SETTING = "sources"
ROWS_FILE, ABOUT_FILE = "demonstrations.jsonl", "demonstrations.json"
"""In the folder of a run: what it finetunes on, and where that is from."""
LEARNED_FROM = "learned_from"
"""In a version's `info`: the same as the second file."""
STARTER_DEMONSTRATIONS, STARTER_PROMPTS = "starter-demonstrations", "starter-prompts"
STARTER_TYPES = {STARTER_DEMONSTRATIONS: "conversation", STARTER_PROMPTS: "prompt"}
"""Known also before they are installed."""
MOST_OFTEN = 100
"""Times that an epoch may see a row."""
HOLDS = {
    "conversation": "demonstrations",
    "prompt": "prompts",
    "preference": "preference pairs",
    "ranking": "rankings",
    "rated": "rated replies",
    "text": "plain text",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Names of data sets."""

    demonstrations: tuple[str, ...] = (STARTER_DEMONSTRATIONS,)
    prompts: tuple[str, ...] = (STARTER_PROMPTS,)

    @classmethod
    def of(cls, session: Session) -> "Sources":
        kept = settings.get(session, SETTING, {})
        return cls(**{key: tuple(value) for key, value in kept.items()})

    def keep(self, session: Session) -> None:
        """Use these from now on; what they cannot be used for is refused here, not in a run."""
        if not self.demonstrations or not self.prompts:
            raise DataError("Name at least one set of demonstrations and one of prompts.")
        for name in self.demonstrations:
            check_holds(session, name, "conversation")
        for name in self.prompts:
            check_holds(session, name, "prompt")
        _check_can_measure(session, [name for name in self.prompts if name != STARTER_PROMPTS])
        settings.put(session, SETTING, asdict(self))


def check_holds(session: Session, name: str, *wanted: str) -> None:
    """Rows of one of these types, of which at least one is not sealed."""
    found = STARTER_TYPES.get(name) or type_of(session, name)
    if found not in wanted:
        needed = " or ".join(HOLDS[each] for each in wanted)
        needed += " is needed" if wanted == ("text",) else " are needed"
        raise DataError(f"{name!r} holds {HOLDS.get(found, 'nothing')}, where {needed}.")
    if name not in STARTER_TYPES and not library.num_examples(session, name):
        raise DataError(
            f"Every row of {name!r} is sealed to measure with, so none is left to use. "
            "Add the file again under another name, with fewer sealed."
        )


def _check_can_measure(session: Session, own: Sequence[str]) -> None:
    if own and not any(library.num_examples(session, name, exam=True) for name in own):
        raise DataError(
            f"{' and '.join(map(repr, own))} {'have' if own[1:] else 'has'} no sealed rows, so "
            "nothing could be measured on your prompts. "
            "Add the file again under another name, with one fifth sealed."
        )


def type_of(session: Session, name: str) -> str:
    """What the first row is: a data set holds one type."""
    rows = select(ExampleRow.body).where(ExampleRow.dataset_id == library.dataset(session, name).id)
    body = session.scalar(rows.limit(1))
    return str(body["type"]) if body else ""


def install_starter(workspace: Workspace) -> None:
    """Put the starter set into the library, as any other data set, once."""
    with workspace.database.write() as session:
        add_starter(session)


def add_starter(session: Session) -> None:
    """The same for a caller that writes already."""
    if not _is_there(session, STARTER_DEMONSTRATIONS):
        demonstrations = [each.to_json() for each in starter.demonstrations()]
        _add_starter_set(session, STARTER_DEMONSTRATIONS, "messages", demonstrations)
    if not _is_there(session, STARTER_PROMPTS):
        prompts = [
            PromptExample(
                conversation=each.conversation,
                key=each.key,
                family=each.family,
                checks=each.checks,
            ).to_json()
            for each in starter.feedback_prompts()
        ]
        _add_starter_set(session, STARTER_PROMPTS, "prompt", prompts)


def _add_starter_set(
    session: Session, name: str, kind: str, bodies: Sequence[Mapping[str, Any]]
) -> None:
    entry = DatasetEntry(
        name=name,
        sha256=fingerprint(bodies),
        kind=kind,
        source="written for Amenable; ships with it",
        licence=STARTER_LICENCE,
    )
    library.add_dataset(session, entry, bodies)


def _is_there(session: Session, name: str) -> bool:
    try:
        library.dataset(session, name)
    except NotFoundError:
        return False
    return True


Mixture = Mapping[str, float]
"""How often an epoch sees the rows of each data set, by name."""


def mixture_of(words: Iterable[str]) -> dict[str, float]:
    """NAME is seen once an epoch, NAME:0.5 half, NAME:2 twice; `starter` is the set that ships.

    >>> mixture_of(["ours", "starter:0.5"])
    {'ours': 1.0, 'starter-demonstrations': 0.5}
    """
    found: dict[str, float] = {}
    for word in words:
        name, _, weight = word.partition(":")
        name = STARTER_DEMONSTRATIONS if name == "starter" else name
        if name in found:
            raise ConfigError("data", word, must="name each data set once")
        try:
            found[name] = float(weight or 1)
        except ValueError:
            found[name] = 0.0
        if not 0 < found[name] <= MOST_OFTEN:
            raise ConfigError("data", word, must=f"be NAME or NAME:WEIGHT, up to {MOST_OFTEN}")
    return found


def mixture_words(mixture: Mixture) -> str:
    """As a run's input keeps it.

    >>> mixture_words({"ours": 1.0, "starter-demonstrations": 0.5})
    'ours,starter-demonstrations:0.5'
    """
    return ",".join(
        name if weight == 1 else f"{name}:{weight:g}" for name, weight in mixture.items()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstrations:
    """What a run finetunes on: the data sets of the time by their sha256, and mended replies."""

    examples: Sequence[ConversationExample]
    """Those of the sets in their order, then what was mended."""
    sets: Mapping[str, str]
    num_of: Mapping[str, int]
    """Examples of each set."""
    num_mended: int
    weights: Mixture = field(default_factory=dict[str, float])
    """Of the sets; nothing where each is seen once an epoch, as what was mended is always."""

    @property
    def conversations(self) -> list[Conversation]:
        return [each.conversation for each in self.examples]

    def about(self) -> dict[str, Any]:
        """All but the rows."""
        kinds = {check.kind for each in self.examples for check in each.checks}
        return {
            "num": len(self.examples),
            "num_mended": self.num_mended,
            "sets": dict(self.sets),
            "kinds": sorted(kinds),
            "num_of": dict(self.num_of),
            "weights": dict(self.weights),
        }

    def shares(self, origins: Sequence[int]) -> list[Share]:
        """For rows that were made of these examples: how often an epoch sees each."""
        found: list[Share] = []
        start = 0
        for name, num in (*self.num_of.items(), ("", self.num_mended)):
            of_set = range(start, start + num)
            positions = [at for at, origin in enumerate(origins) if origin in of_set]
            found.append(Share(positions, self.weights.get(name, 1.0)))
            start += num
        return found

    def keep(self, folder: Path) -> None:
        """The small file comes last: where it is, the rows are whole."""
        rows = "".join(json.dumps(each.to_json()) + "\n" for each in self.examples)
        write_whole(folder / ROWS_FILE, rows.encode())
        write_whole(folder / ABOUT_FILE, (json.dumps(self.about(), indent=1) + "\n").encode())

    @classmethod
    def kept(cls, folder: Path) -> Self | None:
        """What an earlier attempt of this run began with."""
        if not (folder / ABOUT_FILE).is_file():
            return None
        about = json.loads((folder / ABOUT_FILE).read_text("utf-8"))
        rows = (folder / ROWS_FILE).read_text("utf-8").splitlines()
        return cls(
            examples=[ConversationExample.from_json(json.loads(row)) for row in rows],
            sets=about["sets"],
            num_mended=about["num_mended"],
            num_of=about["num_of"],
            weights=about["weights"],
        )


def training_conversations(session: Session) -> list[ConversationExample]:
    return list(demonstrations(session).examples)


def demonstrations(session: Session, mixture: Mixture | None = None) -> Demonstrations:
    """What finetuning learns from: sealed rows are left out, mended replies come in.

    The data sets are those of the mixture, or the ones that the loop uses.
    """
    mixture = mixture or dict.fromkeys(Sources.of(session).demonstrations, 1.0)
    sealed = sealed_prompts(session)

    def honest(found: Iterable[ConversationExample]) -> list[ConversationExample]:
        return [each for each in found if not asks_any(each.conversation, sealed)]

    written = {
        name: honest(map(ConversationExample.from_json, library.examples(session, name)))
        for name in mixture
    }
    mended = honest(
        ConversationExample(conversation=each.conversation, family=each.family)
        for each in export.mended_demonstrations(session)
    )
    if not any(written.values()) and not mended:
        raise DataError("There is no demonstration to learn from. Import some on the Data page.")
    return Demonstrations(
        examples=[*(each for rows in written.values() for each in rows), *mended],
        sets={name: library.dataset(session, name).sha256 for name in mixture},
        num_mended=len(mended),
        num_of={name: len(rows) for name, rows in written.items()},
        weights={name: weight for name, weight in mixture.items() if weight != 1},
    )


def feedback_prompts(session: Session) -> list[PromptExample]:
    """What people judge replies to; sealed prompts are left out, also where they stand twice."""
    sealed = sealed_prompts(session)
    return [
        each for each in _prompts(session, exam=False) if not asks_any(each.conversation, sealed)
    ]


def sealed_prompts(session: Session) -> frozenset[Conversation]:
    return frozenset(_plain(each.conversation) for each in exam_prompts(session))


def asks_any(conversation: Conversation, sealed: frozenset[Conversation]) -> bool:
    """Whether it says what a sealed prompt says, up to any turn: then it would teach the exam.

    >>> chat = Conversation.of(("user", "Hi"), ("assistant", "Hello."), ("user", "And now?"))
    >>> asks_any(chat, frozenset([Conversation.of(("user", "hi"))]))
    True
    """
    turns = _plain(conversation).messages
    return any(Conversation(turns[:end]) in sealed for end in range(1, len(turns) + 1))


def _plain(conversation: Conversation) -> Conversation:
    """Without what makes no difference to a reader: case and runs of white space."""
    return Conversation(
        tuple(
            Message(each.role, " ".join(each.text.casefold().split()))
            for each in conversation.messages
        )
    )


def exam_prompts(session: Session) -> list[PromptExample]:
    """Sealed prompts of one's own: compare reads them, no training run does."""
    return _prompts(session, exam=True)


def _prompts(session: Session, *, exam: bool) -> list[PromptExample]:
    return [
        PromptExample.from_json(body)
        for name in Sources.of(session).prompts
        for body in library.examples(session, name, exam=exam)
    ]
