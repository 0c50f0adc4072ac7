import pytest

from amenable.apps.cli.main import main
from amenable.apps.cli.table import ALL, Command

EVERY = [
    (name, *inner)
    for name, entry in ALL.items()
    for inner in ([()] if isinstance(entry, Command) else [(sub,) for sub in entry.commands])
]


def status(*words: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code or 0


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    assert status(*words, "--help") == 0

    said = capsys.readouterr().out
    assert said.startswith(f"usage: amenable {' '.join(words)}")
    entry = ALL[words[0]]
    command = entry if isinstance(entry, Command) else entry.commands[words[1]]
    assert command.sentence in " ".join(said.split())


def test_the_first_page_names_every_command(capsys: pytest.CaptureFixture[str]):
    assert status() == 0

    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in ALL)


def test_a_group_lists_its_commands(capsys: pytest.CaptureFixture[str]):
    assert status("models", "--help") == 0

    assert "\n  add " in capsys.readouterr().out


def test_the_sentences_of_knobs_come_from_their_config(capsys: pytest.CaptureFixture[str]):
    status("align", "--help")

    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "How firmly to stay near the parent model, larger stays nearer" in said
    assert "--preference.beta" in said


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]):
    assert status("--version") == 0

    assert capsys.readouterr().out.startswith("amenable ")
