"""The model card."""

import pytest
from tests.unit.reports.results import result

from amenable.reports.model_card import model_card


def test_a_card_names_base_terms_data_numbers_and_limits():
    card = model_card("v2", result().lineage, result())

    for wanted in ("# v2", "CC0-1.0", "50 % (45 % to 55 %)", "+30 (+20 to +40; p = 0.001)",
                   "could be chance", "Simulated", "## Limits", "Weakest family"):  # fmt: skip
        assert wanted in card


def test_families_stay_in_the_report():
    assert "plan" not in model_card("v2", result().lineage, result())


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("a | b", "a \\| b"),
        ("line\n# no heading", "line \\# no heading"),
        ("<b>bold</b>", "\\<b>bold\\</b>"),
        ("*stars* [link](x)", "\\*stars\\* \\[link](x)"),
    ],
)
def test_text_of_others_stays_text(said: str, written: str):
    found = result(said=said)
    card = model_card("v2", found.lineage, found)

    assert said not in card
    assert f"- **origin:** {written}\n" in card


def test_real_people_are_not_called_simulated():
    found = result(simulated_people=False)
    assert "Simulated" not in model_card("v1", found.lineage, found)


def test_without_figures_a_card_claims_none():
    card = model_card("v2", result().lineage, None)

    assert "Nothing yet" in card
    assert "CC0-1.0" in card
    assert "No test of safety" in card
    assert "%" not in card
