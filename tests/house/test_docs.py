"""What the pages of documentation say is so: links, commands, options, words and estimates."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from amenable.models.catalogue import KNOWN_MODELS
from amenable.pipeline.plan import Machine, Shape, estimate

ROOT = Path(__file__).parents[2]
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
SOURCES = sorted((ROOT / "src" / "amenable").rglob("*.py"))
TEMPLATES = sorted((ROOT / "src" / "amenable").rglob("templates/**/*.html"))

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"(?:^|[/\s])amenable((?: [a-z]+)*)((?: \S+)*)$")
SAID = re.compile(r"amenable ([a-z]+)(?: ([a-z]+))?\b((?: [^\s`\"'<]+)*)")
GROUPS = {"data", "models", "runs"}  # commands that have commands of their own

# Words that the glossary warns of in one sense, and that pages use in another.
ORDINARY = {
    "answer": "a verb: the model answers, Amenable does not answer",
    "output": "of a file's column: alpaca rows have one",
    "input": "of a file's column: alpaca rows may have one",
}

# Sizes as their publishers state them; known models carry their own.
SHAPES = {
    "SmolLM2 135M": Shape(**KNOWN_MODELS["smollm2-135m-instruct"].shape),
    "Gemma 3 270M": Shape(**KNOWN_MODELS["gemma-3-270m"].shape),
    "Qwen3 0.6B": Shape(
        backbone=440_467_456, head=155_582_464, hidden=1024, layers=28, vocabulary=151_936
    ),
    "Llama 3.2 1B": Shape(
        backbone=973_146_112, head=262_668_288, hidden=2048, layers=16, vocabulary=128_256
    ),
}
README_GFLOPS = 400.0


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose_of(text: str) -> str:
    return FENCE.sub("", text)


def anchors_of(path: Path) -> set[str]:
    """Headings as the usual readers of Markdown turn them into anchors."""
    found = re.findall(r"^#+ (.+)$", prose_of(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def broken_links(path: Path) -> list[str]:
    broken: list[str] = []
    for target in LINK.findall(prose_of(path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (path.parent / place).resolve() if place else path
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("path", DOCS, ids=name_of)
def test_every_relative_link_leads_somewhere(path: Path):
    assert broken_links(path) == []


def commands_in(text: str) -> list[tuple[str, list[str]]]:
    """Each `amenable …` as its words ("data import") and its options ("--as")."""
    lines = [line for _, block in FENCE.findall(text) for line in block.splitlines()]
    found: list[tuple[str, list[str]]] = []
    for line in [*lines, *INLINE.findall(prose_of(text))]:
        command = COMMAND.search(line.strip())
        if command is None:
            continue
        words = command[1].split()
        depth = 2 if words[:1] and words[0] in GROUPS else 1
        options = re.findall(r"(?<=\s)--[a-z]+(?:[.-][a-z]+)*", command[2])
        found.append((" ".join(words[:depth]), [each for each in options if each != "--help"]))
    return found


@cache
def help_of(words: str) -> str:
    command = [sys.executable, "-m", "amenable.apps.cli.main", *words.split(), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"amenable {words} --help: {done.stderr or done.stdout}"
    return done.stdout


def listed_in(words: str) -> set[str]:
    """The commands that a help lists: two spaces, a word, its sentence."""
    return set(re.findall(r"^  ([a-z]+)  ", help_of(words), re.MULTILINE))


def unknown_in(words: str, options: Iterable[str]) -> list[str]:
    """What of a command as it is shown does not exist."""
    above, _, last = words.rpartition(" ")
    if last and last not in listed_in(above):
        return [words]
    known = re.findall(r"--[a-z]+(?:[.-][a-z]+)*", help_of(words))
    return [f"{words} {option}" for option in options if option not in known]


SHOWN = {path: commands_in(path.read_text(encoding="utf-8")) for path in DOCS}


def test_docs_show_commands():
    """So that a change of the way they are written cannot make the next test empty."""
    assert ("start", ["--headless", "--accept-licence", "--json"]) in SHOWN[ROOT / "README.md"]


@pytest.mark.parametrize("path", [path for path, shown in SHOWN.items() if shown], ids=name_of)
def test_every_command_and_option_shown_exists(path: Path):
    assert [each for words, options in SHOWN[path] for each in unknown_in(words, options)] == []


def test_every_option_that_pages_and_messages_show_exists():
    """There a command stands in the middle of a sentence, so only the known ones are looked at."""
    wrong: list[str] = []
    for path in [*TEMPLATES, *SOURCES]:
        for first, second, rest in SAID.findall(path.read_text(encoding="utf-8")):
            if first not in listed_in(""):
                continue
            words = f"{first} {second}" if first in GROUPS and second else first
            options = re.findall(r"(?<=\s)--[a-z]+(?:[.-][a-z]+)*", rest)
            wrong += [f"{path.name}: {each}" for each in unknown_in(words, options)]

    assert wrong == []


def test_every_make_target_shown_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    texts = [path.read_text(encoding="utf-8") for path in DOCS]
    lines = [
        line for text in texts for _, block in FENCE.findall(text) for line in block.split("\n")
    ]
    inline = [each for text in texts for each in INLINE.findall(prose_of(text))]
    shown = {
        word for line in [*lines, *inline] for word in re.findall(r"^ *make ([a-z][a-z-]*)", line)
    }

    assert {"start", "test"} <= shown
    assert shown - targets == set()


@pytest.mark.parametrize("path", DOCS, ids=name_of)
def test_programs_and_json_shown_can_be_read(path: Path):
    for kind, block in FENCE.findall(path.read_text(encoding="utf-8")):
        if kind == "python":
            ast.parse(block)
        if kind == "json":
            for line in block.strip().splitlines():
                json.loads(line)


def words_to_avoid() -> set[str]:
    """The last column of the glossary, without what stands in brackets."""
    rows = re.findall(
        r"^\|(?:[^|]*\|){2}([^|]*)\|$",
        (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    cells = [re.sub(r"\([^)]*\)", "", cell) for cell in rows[2:]]  # below the heading and its line
    return {word.strip().lower() for cell in cells for word in re.split(r"[,/]", cell)} - {""}


def visible_text(template: str) -> str:
    """What a person sees or hears: text, tooltips, placeholders, names of things."""
    text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", " ", template, flags=re.DOTALL)
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", text, flags=re.DOTALL)
    spoken = re.findall(r'(?:aria-label|title|placeholder|alt|data-tip)="([^"]*)"', text)
    return " ".join([re.sub(r"<[^>]*>", " ", text), *spoken]).lower()


def test_glossary_is_read():
    assert {"annotators", "completion", "ticket", "iteration"} <= words_to_avoid()


@pytest.mark.parametrize("path", TEMPLATES, ids=name_of)
def test_pages_use_the_words_of_the_glossary(path: Path):
    text = visible_text(path.read_text(encoding="utf-8"))
    avoided = words_to_avoid() - ORDINARY.keys()

    assert [word for word in sorted(avoided) if re.search(rf"\b{re.escape(word)}\b", text)] == []


@pytest.mark.parametrize("path", DECISIONS, ids=name_of)
def test_a_decision_is_numbered_dated_one_page_and_listed(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    number = int(path.name[:4])

    assert lines[0].startswith(f"# {number}. ")
    assert re.match(r"\d{4}-\d{2}-\d{2} · (?:accepted|superseded by \d+)$", lines[2])
    assert len(lines) <= 60
    assert f"decisions/{path.name}" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def test_decisions_are_numbered_without_gaps():
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def estimated_rows() -> list[list[str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[-1] == "estimated"]


@pytest.mark.parametrize("row", estimated_rows(), ids=lambda row: row[0])
def test_estimates_of_the_readme_are_those_of_the_plan(row: list[str]):
    name, _, memory, *minutes, _ = row
    machine = Machine(
        cores=2,
        memory_bytes=2**33,
        gflops=README_GFLOPS,
        dtype="bfloat16",
        gpu=None,
        gpu_is_used=False,
    )
    plan = estimate(name, SHAPES[name], machine, download_bytes=0)
    stages = (plan.finetune, plan.sample, plan.align, plan.compare)

    assert memory == f"{max(stage.memory_bytes for stage in stages) / 1e9:.1f} GB"
    assert [int(each.removesuffix(" min")) for each in minutes] == pytest.approx(
        [stage.seconds / 60 for stage in stages], abs=0.51
    )


@pytest.mark.parametrize("path", DOCS, ids=name_of)
def test_nothing_waits_to_be_measured(path: Path):
    assert "<!-- measured" not in path.read_text(encoding="utf-8")
