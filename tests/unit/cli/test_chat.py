from pathlib import Path

import pytest

from amenable.apps.cli.commands.chat import ChatArguments, Talk
from amenable.apps.cli.out import Out
from amenable.generation.engine import ScriptedEngine


def talk(
    monkeypatch: pytest.MonkeyPatch, *lines: str, system: str | None = None
) -> list[dict[str, str]]:
    waiting = iter(lines)

    def hear(*_: object, **__: object) -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    out = Out()
    monkeypatch.setattr(out.console, "input", hear)
    arguments = ChatArguments(model="echo", system=system, workspace=Path("w"), seed=0)
    engine = ScriptedEngine({"echo": ["Hello there.", "And again."]})
    return Talk(engine, arguments, out, "instruct").until_quit().to_json()


def test_turns_are_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    said = talk(monkeypatch, "Hi", "", "More", "/quit", "never heard", system="Be brief.")

    assert [turn["role"] for turn in said] == ["system", "user", "assistant", "user", "assistant"]
    assert said[-1]["content"] == "And again."
    assert "Hello there." in capsys.readouterr().out


def test_new_forgets_and_the_end_of_input_quits(monkeypatch: pytest.MonkeyPatch):
    said = talk(monkeypatch, "Hi", "/new", "More")

    assert [turn["content"] for turn in said] == ["More", "And again."]


def test_an_unknown_command_helps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert talk(monkeypatch, "/help") == []
    assert "/quit ends" in capsys.readouterr().out
