"""Configs as forms: every knob, its bounds, and what was typed read back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from amenable.pipeline.config import STAGE_CONFIGS, AlignConfig, FinetuneConfig, SampleConfig
from amenable.pipeline.form import (
    MOST_LETTERS,
    FormError,
    Knob,
    config_of,
    knobs,
    typed,
    values_of,
)
from amenable.pipeline.knobs import read_config
from amenable.records.errors import ConfigError

KINDS = list(STAGE_CONFIGS.values())


def by_name(kind: type[Any]) -> dict[str, Knob]:
    return {knob.name: knob for knob in knobs(kind).knobs()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_config_is_a_form_with_a_sentence_for_each_knob(kind: type[Any]):
    for part in (*knobs(kind).knobs(), *(each for each in knobs(kind).groups() if each.name)):
        assert part.sentence.endswith(".")
        assert "\n" not in part.sentence


@pytest.mark.parametrize("kind", KINDS)
def test_the_form_as_it_stands_is_the_default_config(kind: type[Any]):
    assert config_of(kind, typed(kind())) == kind()


def test_a_group_shows_the_defaults_of_its_owner():
    assert by_name(FinetuneConfig)["fit.num_epochs"].default == 3
    assert by_name(AlignConfig)["fit.num_epochs"].default == 1
    assert typed(AlignConfig())["fit.learning_rate"] == "0.00005"


def test_each_sort_of_knob_is_known():
    align, finetune, sample = (
        by_name(kind) for kind in (AlignConfig, FinetuneConfig, SampleConfig)
    )
    loss, beta = align["preference.loss"], align["preference.beta"]
    assert (loss.entry, loss.options[:2], loss.is_optional) == (
        "choice",
        ("dpo", "dpo_per_token"),
        False,
    )
    assert (beta.entry, beta.default, beta.is_optional) == ("number", None, True)
    assert finetune["train_marker_rows"].entry == "switch"
    assert finetune["lora.rank"].entry == "integer"
    assert finetune["lora.rank"].sentence.startswith("Width of the trained low-rank update;")
    assert (sample["against"].entry, sample["against"].is_optional) == ("text", True)


@pytest.mark.parametrize(
    ("kind", "name", "least"),
    [
        (FinetuneConfig, "lora.rank", 1),
        (FinetuneConfig, "fit.tokens_per_batch", 64),
        (FinetuneConfig, "max_tokens", 16),
        (FinetuneConfig, "limit", 0),
        (FinetuneConfig, "fit.learning_rate", 0),
        (AlignConfig, "preference.beta", 0),
        (FinetuneConfig, "method", None),
    ],
)
def test_bounds_are_those_that_the_config_keeps(kind: type[Any], name: str, least: int | None):
    assert by_name(kind)[name].least == least


@dataclass(frozen=True, kw_only=True)
class Unbounded:
    warmth: float = 0.5
    """May be below zero."""


def test_a_knob_that_takes_everything_has_no_bound():
    assert by_name(Unbounded)["warmth"].least is None


positive = st.floats(min_value=1e-300, max_value=1e300)
counts = st.integers(min_value=64, max_value=10**30)
FITS = {
    "fit.num_epochs": counts,
    "fit.learning_rate": positive,
    "fit.weight_decay": st.floats(min_value=0, max_value=1e9),
    "fit.warmup_share": st.floats(min_value=0, max_value=1, exclude_max=True),
}
VALUES: dict[type[Any], dict[str, st.SearchStrategy[Any]]] = {
    FinetuneConfig: {
        **FITS,
        "method": st.sampled_from(["lora", "qlora", "layers", "full"]),
        "train_marker_rows": st.booleans(),
        "lora.rank": counts,
        "max_tokens": counts,
    },
    AlignConfig: {
        **FITS,
        "preference.loss": st.sampled_from(["dpo", "ipo", "kto"]),
        "preference.beta": st.none() | positive,
        "preference.sft_weight": st.none() | positive,
    },
}


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(".")
        place = found
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return found


@pytest.mark.parametrize("kind", list(VALUES))
@given(data=st.data())
def test_what_is_shown_of_a_config_is_read_as_that_config(kind: type[Any], data: st.DataObject):
    flat = data.draw(st.fixed_dictionaries(VALUES[kind]))
    assume(not (flat.get("preference.loss") == "kto" and flat["preference.sft_weight"]))
    config = read_config(kind, nested(flat))
    assert config_of(kind, typed(config)) == config


SCRIBBLE = st.text("0123456789.,-+_e naif\x00\n٣é", max_size=110) | st.floats().map(str)


@pytest.mark.parametrize("kind", [FinetuneConfig, AlignConfig, SampleConfig])
@given(data=st.data())
def test_whatever_is_typed_is_a_config_or_is_refused_by_field(kind: type[Any], data: st.DataObject):
    names = st.sampled_from([*by_name(kind), "speed"])
    texts = data.draw(st.dictionaries(names, SCRIBBLE, max_size=4))
    refused: set[str] = set()
    try:
        config_of(kind, texts)
    except FormError as error:
        refused = set(error.problems)
    assert refused <= set(texts)


@pytest.mark.parametrize(
    ("texts", "problems"),
    [
        ({"fit.num_epochs": "many"}, {"fit.num_epochs": "be a whole number"}),
        ({"fit.num_epochs": "1.5"}, {"fit.num_epochs": "be a whole number"}),
        ({"fit.num_epochs": ""}, {"fit.num_epochs": "be a whole number"}),
        ({"fit.learning_rate": "nan"}, {"fit.learning_rate": "be a number"}),
        ({"fit.learning_rate": "0,5"}, {"fit.learning_rate": "be a number"}),
        ({"method": "half"}, {"method": "be one of lora, qlora, layers, full"}),
        ({"train_marker_rows": "maybe"}, {"train_marker_rows": "be on or off"}),
        ({"limit": "1" * 101}, {"limit": f"have at most {MOST_LETTERS} letters"}),
        ({"speed": "1"}, {"speed": "be a knob of this form"}),
        ({"fit": "1"}, {"fit": "be a knob of this form"}),
        ({"lora.rank": "0"}, {"lora.rank": "be at least 1"}),
        (
            {"fit.num_epochs": "0", "fit.warmup_share": "2", "max_tokens": "3", "limit": "5"},
            {
                "fit.num_epochs": "be at least 1",
                "fit.warmup_share": "lie in [0, 1)",
                "max_tokens": "be at least 16",
            },
        ),
        (
            {"limit": "many", "speed": "", "lora.rank": "0"},
            {
                "limit": "be a whole number",
                "speed": "be a knob of this form",
                "lora.rank": "be at least 1",
            },
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named_by_its_field(texts: dict[str, str], problems: dict[str, str]):
    with pytest.raises(FormError) as raised:
        config_of(FinetuneConfig, texts)

    assert raised.value.problems == problems


def test_two_knobs_that_do_not_go_together_are_named_at_one_of_them():
    with pytest.raises(FormError) as raised:
        config_of(AlignConfig, {"preference.loss": "kto", "preference.sft_weight": "2"})

    assert raised.value.problems == {"preference.sft_weight": "be 0 with kto"}
    assert str(raised.value) == "preference.sft_weight must be 0 with kto."


def test_what_is_not_sent_keeps_its_default_but_a_switch_is_off():
    config = config_of(FinetuneConfig, {"lora.rank": " 8 "})
    assert (config.lora.rank, config.fit) == (8, FinetuneConfig().fit)
    assert not config.train_marker_rows


def test_an_optional_knob_is_left_empty():
    assert values_of(AlignConfig, {"preference.beta": ""}) == {"preference": {"beta": None}}


@dataclass(frozen=True, kw_only=True)
class Mistaken:
    width: int = 2
    """So wide."""
    depth: int = 3
    """So deep."""

    def __post_init__(self) -> None:
        if self.width * self.depth > 100:
            raise ConfigError("size", self.width * self.depth, must="be at most 100")


def test_a_complaint_about_no_field_is_given_once_as_it_is():
    with pytest.raises(FormError) as raised:
        config_of(Mistaken, {"width": "50"})

    assert raised.value.problems == {"size": "be at most 100"}
