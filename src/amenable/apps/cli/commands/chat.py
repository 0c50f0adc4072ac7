"""amenable chat: talk to a model in the terminal."""

from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from amenable.apps.cli.options import DEFAULT_WORKSPACE, SEED, JsonFlag, NoDefault, WorkspaceFolder
from amenable.apps.cli.out import Out
from amenable.apps.cli.places import existing, needs_training_packages
from amenable.records.conversation import Conversation, Message
from amenable.records.sample import Sample, SamplingSettings

if TYPE_CHECKING:
    from amenable.generation.engine import Engine, Request

HELP = "/new begins anew, /quit ends. Ctrl-C stops a reply."


@dataclass(frozen=True, kw_only=True)
class ChatArguments:
    model: tyro.conf.Positional[str]
    """A model of the library (amenable models list), base or instruct."""
    system: Annotated[str | None, NoDefault] = None
    """What the model is told before the first turn."""
    temperature: float = 0.7
    """How freely replies are drawn; 0 always takes the likeliest token."""
    top_p: float = 0.95
    """Draw only from the likeliest tokens that share this much probability."""
    max_new_tokens: int = 256
    """Longer replies are cut off."""
    seed: int = SEED
    """Decides every draw; it grows by 1 with each turn."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False

    def settings(self) -> SamplingSettings:
        return SamplingSettings(
            max_new_tokens=self.max_new_tokens, temperature=self.temperature, top_p=self.top_p
        )


def run(arguments: ChatArguments, out: Out) -> dict[str, Any]:
    needs_training_packages()
    arguments.settings()  # what cannot be drawn with is refused before a model is loaded for it
    with existing(arguments.workspace) as workspace:
        from amenable.store import library

        with workspace.database.read() as session:
            kind = library.speaker(session, arguments.model).kind
        from amenable.pipeline.engines import open_engine

        engine = open_engine(workspace, [arguments.model])
        style = "base" if kind == "base" else "instruct"
        if kind == "base":
            out.say("This is a base model: it continues text, and may not answer.", style="base")
        out.say(HELP, style="quiet")
        with suppress(ImportError):
            import_module("readline")  # gives the prompt its history, where there is one
        said = Talk(engine, arguments, out, style).until_quit()
    return {"model": arguments.model, "messages": said.to_json()}


class Talk:
    """Turn after turn; what was said goes into the next prompt."""

    def __init__(self, engine: "Engine", arguments: ChatArguments, out: Out, style: str) -> None:
        self._engine = engine
        self._arguments = arguments
        self._out = out
        self._style = style
        self._settings = arguments.settings()
        self._num_turns = 0

    def until_quit(self) -> Conversation:
        said = self._opening()
        while (text := self._hear()) != "/quit":
            if text == "/new":
                said = self._opening()
                self._out.say("A new conversation.", style="quiet")
            elif text.startswith("/"):
                self._out.say(HELP, style="quiet")
            elif text:
                asked = Conversation((*said.messages, Message("user", text)))
                reply = self._reply(asked)
                said = said if reply is None else asked.with_reply(reply)
        return said

    def _opening(self) -> Conversation:
        system = self._arguments.system
        return Conversation((Message("system", system),) if system else ())

    def _hear(self) -> str:
        try:
            return self._out.console.input("› ").strip()
        except EOFError:
            return "/quit"

    def _reply(self, asked: Conversation) -> str | None:
        from amenable.generation.engine import Request

        request = Request(
            prompt=asked,
            model=self._arguments.model,
            settings=self._settings,
            seed=self._arguments.seed + self._num_turns,
        )
        self._num_turns += 1
        return self._stream(request)

    def _stream(self, request: "Request") -> str | None:
        """What was said, also when it was stopped; None if nothing was."""
        pieces: list[str] = []
        try:
            for piece in self._engine.stream(request):
                if isinstance(piece, Sample):
                    self._end(piece.stop_reason == "length")
                    return piece.reply
                pieces.append(piece)
                self._out.say(piece, style=self._style, end="")
        except KeyboardInterrupt:
            self._out.say()
            self._out.say("(stopped)", style="quiet")
        return "".join(pieces).strip() or None

    def _end(self, is_cut: bool) -> None:  # noqa: FBT001
        self._out.say()
        if is_cut:
            self._out.say(f"(cut off after {self._settings.max_new_tokens} tokens)", style="quiet")
