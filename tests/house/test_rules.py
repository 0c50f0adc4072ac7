"""The rules of the house that no other tool checks."""

import ast
import re
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import amenable

SOURCES = Path(amenable.__path__[0])
FILES = sorted(SOURCES.rglob("*.py"))
ROOMS = [path for path in FILES if path.name == "__init__.py" and path.parent != SOURCES]
CONFIGS = [path for path in FILES if path.name == "config.py"]
MODULES = sorted(found.name for found in walk_packages(amenable.__path__, "amenable."))
MOST_LINES = 400


def shown(path: Path) -> str:
    return path.relative_to(SOURCES).as_posix()


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name: str):
    import_module(name)


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_every_file_is_short_enough_to_read(path: Path):
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_every_file_says_first_what_it_is_for(path: Path):
    text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert text, "a file without a sentence on top"
    first = text.partition("\n\n")[0]
    assert re.search(r"[.:;?!]['\")`]?$", first), first


@pytest.mark.parametrize("path", ROOMS, ids=shown)
def test_every_room_has_one_sentence_and_nothing_else(path: Path):
    module = ast.parse(path.read_text("utf-8"))
    assert len(module.body) == 1, "nothing is re-exported"
    text = ast.get_docstring(module) or ""
    assert "\n" not in text
    assert text.endswith(".")


def knobs(path: Path) -> list[tuple[str, str]]:
    """Fields of the config classes, each with the sentence under it ("" where there is none)."""
    found: list[tuple[str, str]] = []
    for each in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(each, ast.ClassDef):
            continue
        for node, after in zip(each.body, [*each.body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                sentence = ""
                if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                    sentence = str(after.value.value)
                found.append((f"{each.name}.{node.target.id}", sentence))
    return found


@pytest.mark.parametrize("path", CONFIGS, ids=shown)
def test_every_knob_has_a_sentence(path: Path):
    assert knobs(path)
    assert [name for name, sentence in knobs(path) if not sentence.strip().endswith(".")] == []


def test_no_file_names_a_place_on_somebodys_machine():
    place = re.compile(r"""["'](/work/|/root/|/home/|/Users/|C:\\\\)""")
    assert [shown(path) for path in FILES if place.search(path.read_text("utf-8"))] == []


def test_every_marker_of_unfinished_work_bears_an_issue_number():
    word = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XXX)\b(?!\(#\d+\))")
    assert [shown(path) for path in FILES if word.search(path.read_text("utf-8"))] == []
