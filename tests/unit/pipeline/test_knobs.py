"""Configs out of what a run keeps: filled, checked, refused by name."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from amenable.pipeline.config import (
    USUAL,
    AlignConfig,
    CompareConfig,
    ExportConfig,
    FinetuneConfig,
    PreferenceConfig,
    PrepareConfig,
    RewardConfig,
    SampleConfig,
    recorded,
)
from amenable.pipeline.knobs import read_config
from amenable.records.errors import ConfigError

KINDS = [
    *(AlignConfig, CompareConfig, ExportConfig, FinetuneConfig),
    *(PrepareConfig, RewardConfig, SampleConfig),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_config_survives_its_run_record(kind: type[Any]):
    config = kind()
    assert read_config(kind, {}) == config
    assert read_config(kind, json.loads(json.dumps(asdict(config)))) == config


def test_what_is_not_given_keeps_its_default_also_within_a_group():
    found = read_config(FinetuneConfig, {"fit": {"num_epochs": 5}, "lora": {"alpha": 4}})
    assert found.fit.num_epochs == 5
    assert found.fit.learning_rate == FinetuneConfig().fit.learning_rate
    assert (found.lora.alpha, type(found.lora.alpha)) == (4.0, float)


def test_a_group_keeps_the_defaults_of_its_owner():
    found = read_config(AlignConfig, {"fit": {"tokens_per_batch": 512}})
    assert found.fit == replace(AlignConfig().fit, tokens_per_batch=512)
    assert found.fit.learning_rate < FinetuneConfig().fit.learning_rate


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (FinetuneConfig, {"speed": 1}, "speed is 1, but must be one of .*lora"),
        (FinetuneConfig, {"fit": {"speed": 1}}, "speed"),
        (FinetuneConfig, {"fit": 3}, "fit is 3, but must be a group"),
        (FinetuneConfig, {"method": "magic"}, "one of lora, qlora, layers, full"),
        (FinetuneConfig, {"limit": "all"}, "limit is 'all', but must be int"),
        (FinetuneConfig, {"limit": 1.5}, "must be int"),
        (FinetuneConfig, {"limit": True}, "must be a number"),
        (FinetuneConfig, {"limit": None}, "must be int"),
        (FinetuneConfig, {"train_marker_rows": 1}, "must be bool"),
        (FinetuneConfig, {"limit": -1}, "at least 0"),
        (FinetuneConfig, {"fit": {"learning_rate": 0}}, "above 0"),
        (FinetuneConfig, {"fit": {"learning_rate": float("nan")}}, "learning_rate is nan"),
        (FinetuneConfig, {"fit": {"learning_rate": float("inf")}}, "learning_rate is inf"),
        (FinetuneConfig, {"fit": {"warmup_share": 1.0}}, r"\[0, 1\)"),
        (FinetuneConfig, {"fit": {"max_grad_norm": 0}}, "max_grad_norm is 0.0, but must be"),
        (FinetuneConfig, {"fit": {"weight_decay": -0.1}}, "weight_decay is -0.1, but must be"),
        (FinetuneConfig, {"lora": {"rank": 0}}, "rank is 0, but must be at least 1"),
        (SampleConfig, {"temperature": -0.1}, "temperature"),
        (SampleConfig, {"top_p": 0}, r"top_p .* \(0, 1\]"),
        (SampleConfig, {"against": 3}, "against is 3"),
        (AlignConfig, {"preference": {"beta": 0}}, "0.1 is a usual start"),
        (AlignConfig, {"preference": {"flip_rate": 0.5}}, "below 0.5|0, 0.5"),
        (RewardConfig, {"num_heads": 0}, "num_heads is 0, but must be at least 1"),
        (RewardConfig, {"held_out_share": 0.0}, r"held_out_share is 0.0, but must lie in \(0, 1\)"),
        (RewardConfig, {"held_out_share": 1}, r"\(0, 1\)"),
        (RewardConfig, {"centring": -0.1}, "at least 0"),
        (CompareConfig, {"num_prompts": -1}, "at least 0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(kind: type[Any], values: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        read_config(kind, values)


@pytest.mark.parametrize("against", [None, "tiny-instruct-1"])
def test_a_knob_may_be_left_empty_where_that_means_something(against: str | None):
    assert read_config(SampleConfig, {"against": against}).against == against


def test_a_run_records_what_is_usual_for_its_loss():
    given = PreferenceConfig(loss="ipo", sft_weight=1.0)
    found = recorded(AlignConfig(preference=given))["preference"]
    assert (found["beta"], found["sft_weight"]) == (0.5, 1.0)
    assert recorded(AlignConfig())["preference"]["beta"] == 0.1
    assert read_config(AlignConfig, recorded(AlignConfig())).preference.usual() == USUAL["dpo"]
