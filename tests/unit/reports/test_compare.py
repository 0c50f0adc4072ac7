"""The report page: self-contained, escaped, complete."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from tests.unit.reports.results import MAIN, result, row

from amenable.records.errors import DataError
from amenable.reports.compare import comparison_page
from amenable.reports.result import from_json, to_json

HOSTILE = "<script>alert('x')</script>\"><img src=http://evil.example/a.png onerror=x>&amp; $x_1$"
VOID = {"meta", "br", "img", "col", "link"}


class Page(HTMLParser):
    """Tags and text of a page, with a check that tags close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id":
                self.ids.append(str(value))
            if name in ("src", "href", "xlink:href", "action", "srcset", "data"):
                self.addresses.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_outside_the_file_is_asked_for():
    html = comparison_page(result())
    page = Page(html)

    assert all(address.startswith("#") for address in page.addresses)
    assert not re.findall(r"(?:https?:)?//[\w.-]+", html)
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)
    assert "default-src 'none'" in html


def test_whatever_people_and_models_wrote_is_only_ever_text():
    html = comparison_page(result(said=HOSTILE))
    page = Page(html)

    assert not {"script", "img", "iframe", "link", "object"} & set(page.tags)
    assert page.text.count("<script>alert('x')</script>") >= 12
    assert "$x_1$" in page.text


def test_no_two_elements_share_an_id():
    ids = Page(comparison_page(result())).ids

    assert len(ids) == len(set(ids))


def test_it_opens_with_the_sentence_and_the_picture():
    html = comparison_page(result())

    assert html.index("Headline A reply.") < html.index("<svg viewBox") < html.index("What differs")


def test_simulated_people_are_marked_and_real_ones_not():
    simulated = Page(comparison_page(result())).text
    real = Page(comparison_page(result(simulated_people=False, votes_taught=None))).text

    assert "Simulated people." in simulated
    assert "What the simulated votes taught" in simulated
    assert "Simulated people" not in real
    assert "No simulated votes" in real


def test_what_a_sceptic_asks_for_is_there():
    text = " ".join(Page(comparison_page(result())).text.split())

    for wanted in ("also ask for these kinds of check", "max words", "greedy", "amenable 0.1.0",
                   "CC0-1.0", "Newcombe", "Holm", "Seed 7", r'"\n\nRequest:"'):  # fmt: skip
        assert wanted in text


def test_intervals_and_n_stand_with_every_difference():
    text = " ".join(Page(comparison_page(result())).text.split())

    assert "+30 (+20 to +40)" in text
    assert "n = 152" in text
    assert "could be chance" in text


def test_a_bare_result_still_makes_a_page():
    few = result(rows=(), examples=(), training=(), votes_taught=None, worst_family={}, says=())

    assert "Headline" in Page(comparison_page(few)).text


def test_without_perplexity_the_picture_shows_repetition():
    rows = (MAIN, row("repetition", {"base": 0.3, "v1": 0.1, "v2": 0.1}))

    assert "repetition" in Page(comparison_page(result(rows=rows))).text


def test_a_result_comes_back_from_its_file_and_gives_the_same_page():
    there = result(said=HOSTILE)
    back = from_json(to_json(there))

    assert back == there
    assert comparison_page(back) == comparison_page(there)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"models": 3}'])
def test_a_broken_result_is_refused_in_one_line(data: bytes):
    with pytest.raises(DataError, match="no result of a comparison") as caught:
        from_json(data)

    assert "\n" not in str(caught.value)


def test_reports_can_be_imported_without_waiting_for_pictures():
    code = "import sys, amenable.reports.compare; sys.exit('matplotlib' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
