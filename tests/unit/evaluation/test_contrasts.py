"""Which differences a row reports."""

from amenable.evaluation.contrasts import Contrast, contrasts
from amenable.evaluation.model_spec import ModelSpec, anchors, helped, newest_policy

BASE = ModelSpec(name="base", kind="base", form="plain")
HELPED = helped(BASE)
FIRST = ModelSpec(name="v1", kind="policy", form="gemma", parent="base")
SECOND = ModelSpec(name="v2", kind="policy", form="gemma", parent="v1")
GUEST = ModelSpec(name="guest", kind="instruct", form="chatml")
ALL = [BASE, HELPED, FIRST, SECOND, GUEST]


def test_differences_are_taken_against_the_better_form_of_the_base():
    values = {"base": 0.1, "base (helped)": 0.3, "v1": 0.5}

    assert contrasts(ALL[:3], values, "higher") == [Contrast("v1", "base (helped)")]
    assert contrasts(ALL[:3], values, "lower") == [Contrast("v1", "base")]


def test_each_version_stands_against_its_parent_and_the_newest_against_guests():
    values = {"base": 0.1, "base (helped)": 0.3, "v1": 0.5, "v2": 0.6, "guest": 0.7}

    assert set(contrasts(ALL, values, "higher")) == {
        Contrast("v1", "base (helped)"),
        Contrast("v2", "base (helped)"),
        Contrast("v2", "v1"),
        Contrast("guest", "base (helped)"),
        Contrast("v2", "guest"),
    }


def test_a_model_without_a_value_is_left_out():
    values = {"base": 20.0, "v1": 21.0, "v2": 21.0}  # perplexity: none for helped, none for guests

    assert contrasts(ALL, values, "lower") == [
        Contrast("v1", "base"),
        Contrast("v2", "base"),
        Contrast("v2", "v1"),
    ]


def test_without_a_base_the_first_model_is_the_measure():
    assert anchors([FIRST, SECOND]) == ["v1"]
    assert contrasts([FIRST, SECOND], {"v1": 0.5, "v2": 0.6}, "higher") == [Contrast("v2", "v1")]


def test_where_neither_is_better_the_base_as_it_is_counts():
    assert contrasts(ALL[:3], {"base": 90, "base (helped)": 40, "v1": 30}, "neither") == [
        Contrast("v1", "base")
    ]


def test_the_newest_version_is_the_last_one_named():
    assert newest_policy(ALL) == SECOND
    assert newest_policy([BASE, GUEST]) is None
