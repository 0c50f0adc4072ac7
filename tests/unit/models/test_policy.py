"""Loading a policy: what it scores, and how a broken folder is named."""

import json
from pathlib import Path

import pytest
import torch
from tests.tiny import FAMILIES, Family, save_tiny, tiny_policy
from transformers import AutoModelForCausalLM

from amenable.chat.template import FORMS
from amenable.models.policy import Policy
from amenable.records.errors import ModelError, NotFoundError

ROWS = torch.tensor([[2, 4, 20, 21, 5, 30], [2, 7, 40, 41, 0, 0]])  # the second has two of padding


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_are_transformers_own(tmp_path: Path, family: Family):
    policy = tiny_policy(tmp_path / "base", family)
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    with torch.no_grad():
        hidden_BTH = policy.hidden(ROWS)
        ours = policy.log_probs(hidden_BTH[:, :-1].flatten(0, 1), ROWS[:, 1:].flatten())
        logits = network(input_ids=ROWS).logits[:, :-1]
    theirs = logits.log_softmax(-1).gather(-1, ROWS[:, 1:, None])[..., 0].flatten()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_what_follows_on_the_right_changes_nothing_before_it(tmp_path: Path):
    policy = tiny_policy(tmp_path / "base")
    with torch.no_grad():
        alone = policy.hidden(ROWS[1:, :4])
        padded = policy.hidden(ROWS)[1:, :4]
    torch.testing.assert_close(alone, padded, rtol=1e-5, atol=1e-5)


def test_nothing_of_a_loaded_policy_is_trained_unasked(tmp_path: Path):
    policy = tiny_policy(tmp_path / "base")
    assert not any(parameter.requires_grad for parameter in policy.network.parameters())
    assert not policy.network.training


@pytest.mark.parametrize(("family", "begin"), [("gemma", 2), ("chatml", None)])
def test_only_families_that_want_it_begin_with_a_token(
    tmp_path: Path, family: Family, begin: int | None
):
    policy = tiny_policy(tmp_path / "base", family)
    assert policy.encoder("plain").begin == begin


def test_every_form_can_be_spoken_to_a_base(tmp_path: Path):
    policy = tiny_policy(tmp_path / "base")
    assert all(policy.encoder(name).form.name == name for name in FORMS)
    with pytest.raises(NotFoundError, match="chat form"):
        policy.encoder("vicuna")


def broken(folder: Path, what: str) -> None:
    if what == "no config":
        (folder / "config.json").unlink()
    if what == "no weights":
        (folder / "model.safetensors").unlink()
    if what == "cut weights":
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
    if what == "empty weights":
        (folder / "model.safetensors").write_bytes(b"")
    if what == "unknown kind":
        (folder / "config.json").write_text(json.dumps({"model_type": "abacus"}), "utf-8")
    if what == "config is no JSON":
        (folder / "config.json").write_text("{", "utf-8")
    if what == "pickled weights only":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    "what",
    [
        *("no config", "no weights", "cut weights", "empty weights", "unknown kind"),
        *("config is no JSON", "pickled weights only"),
    ],
)
def test_a_broken_folder_ends_in_one_line_that_names_it(tmp_path: Path, what: str):
    folder = save_tiny(tmp_path / "base")
    broken(folder, what)
    with pytest.raises(ModelError) as caught:
        Policy.load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_from_elsewhere_has_no_notes_of_ours(tmp_path: Path):
    assert Policy.read_info(tmp_path) == {}
    assert Policy.read_info(save_tiny(tmp_path / "base"))["family_form"] == "gemma"
