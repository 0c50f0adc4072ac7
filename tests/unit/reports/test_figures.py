"""Pictures: readable without colour, in the page's colours, without addresses."""

import re
from xml.etree.ElementTree import Element, fromstring

import pytest
from tests.unit.reports.results import KINDS, MAIN, VALUES, row

from amenable.reports import figures
from amenable.reports.figures import LOOKS, VARIABLES, Panel
from amenable.reports.result import CurvePoint, Kind

CURVE = [CurvePoint(step=step, value=3 / (step + 1)) for step in range(10)]


def parsed(svg: str) -> Element:
    return fromstring(svg)  # noqa: S314  # our own picture


def texts(svg: str) -> list[str]:
    return ["".join(each.itertext()).strip() for each in parsed(svg).iter("text")]


def test_the_opening_picture_says_every_name_and_value():
    said = texts(figures.opening([Panel("Does what was asked", MAIN)], KINDS))

    for wanted in (*KINDS, "10 %", "20 %", "45 %", "50 %", "Does what was asked", "more is better"):
        assert wanted in said


def test_a_model_without_a_value_is_said_to_have_none():
    plain = row("perplexity", {"base": 20, "v1": 21}, unit="perplexity")

    said = texts(figures.opening([Panel("Surprise", plain), Panel("Main", MAIN)], KINDS))

    assert "same weights as above" in said
    assert "not comparable" in said


def test_families_stand_in_order_with_their_n():
    rows = [
        row("constraints_met/plan", VALUES),
        row("constraints_met/code_and_shell", {**VALUES, "v2": 0.9}),
    ]

    said = texts(figures.families(rows, "base", "v2", ("base", "policy")))

    assert "plan  (152)" in said
    assert "code and shell  (152)" in said
    assert said.index("10 %  →  50 %") < said.index("10 %  →  90 %")  # drawn from below


def test_the_last_value_stands_at_the_end_of_a_curve():
    assert "0.3" in texts(figures.curve(CURVE, "loss", "Loss"))


@pytest.mark.parametrize("name", ["a < b & c", "$x^2$", "$", "\\frac", "東京"])
def test_any_name_is_only_text(name: str):
    kinds: dict[str, Kind] = {name: "policy"}

    assert name in texts(figures.opening([Panel("T", row("m", {name: 0.3}))], kinds))


def test_pictures_use_the_page_s_colours_and_carry_no_address():
    svg = figures.opening([Panel("T", MAIN)], KINDS)

    assert "var(--base)" in svg
    assert "var(--instruct)" in svg
    assert not [colour for colour in VARIABLES if colour in svg]
    assert "http" not in svg
    assert 'role="img"' in svg


def test_the_same_numbers_give_the_same_picture():
    assert figures.curve(CURVE, "loss", "Loss") == figures.curve(CURVE, "loss", "Loss")


def test_ids_carry_the_picture_s_name():
    svg = figures.curve(CURVE, "loss", "Loss")

    assert set(re.findall(r'\bid="(\w+)-', svg)) == {"loss"}


def test_marks_differ_without_colour():
    assert len({(look.marker, look.is_filled) for look in LOOKS.values()}) == len(LOOKS)
