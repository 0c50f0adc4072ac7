"""From a file of text to a base, on from there, and to a version that replies: by commands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from amenable.apps.cli.main import status_of
from amenable.starter.load import plain_texts

Ask = Callable[..., dict[str, Any]]
SHAPE = ("--shape.vocabulary", "400", "--shape.hidden", "32", "--shape.layers", "1")
SHORT = (*("--shape.heads", "2", "--context", "128"), *("--fit.learning-rate", "1e-2"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def ask(place: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    def ask(*words: str) -> dict[str, Any]:
        status = status_of([*words, "--workspace", str(place), "--json"])
        told = capsys.readouterr()
        assert status == 0, told.err
        return json.loads(told.out)

    return ask


def test_a_text_file_becomes_a_base_that_can_be_finetuned(ask: Ask, place: Path, tmp_path: Path):
    file = tmp_path / "pages.txt"
    file.write_text("\n\n".join(each.text for each in plain_texts()[:10]), "utf-8")
    ask("data", "import", str(file), "--as", "pages")

    first = ask("pretrain", "pages", *SHAPE, *SHORT, "--fit.tokens-per-step", "2000")
    assert first["outputs"]["model"] == "pages-base"

    more = ask("pretrain", "pages", "--model", "pages-base", "--name", "more", *SHORT[2:])
    assert (more["inputs"], more["outputs"]["model"]) == (
        {"data": "pages", "model": "pages-base"},
        "more",
    )
    # The same texts are held out again, so the base is found as it was left; then it gets better.
    assert more["outputs"]["bits_before"] == first["outputs"]["bits_per_byte"]
    results = [
        json.loads((place / "runs" / run["run"] / "pretrained.json").read_text("utf-8"))
        for run in (first, more)
    ]
    assert results[1]["before"] == results[0]["after"]
    assert results[1]["after"]["perplexity"] < results[1]["before"]["perplexity"]

    made = ask("finetune", "more", "--data", "starter:0.02", "--max-tokens", "100")
    assert made["inputs"] == {"model": "more", "data": "starter-demonstrations:0.02"}
    assert made["outputs"]["model"] == "more-instruct-1"
    tokenizer = Tokenizer.from_file(str(place / "library" / "more" / "tokenizer.json"))
    for marker in ("<|im_start|>", "<|im_end|>"):
        assert len(tokenizer.encode(marker, add_special_tokens=False).ids) == 1
    tree = {each["name"]: each["parent"] for each in ask("models", "list")["models"]}
    assert tree == {"pages-base": None, "more": "pages-base", "more-instruct-1": "more"}


def test_what_is_no_text_is_refused_before_anything_is_queued(
    ask: Ask, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "Name a bird."}) + "\n", "utf-8")
    ask("data", "import", str(file), "--as", "asked", "--exam-share", "0")

    where = ["--workspace", str(place)]
    assert status_of(["pretrain", "asked", *where]) == 2
    assert "'asked' holds prompts, where plain text is needed." in capsys.readouterr().err
    assert status_of(["pretrain", "ghost", *where]) == 2
    assert "There is no data set 'ghost'. There are: asked." in capsys.readouterr().err
    assert status_of(["pretrain", *where]) == 2
    assert "Missing: DATASET, at least one." in capsys.readouterr().err
    assert ask("runs", "list")["runs"] == []
