"""Loading a policy: what it scores, and how a broken folder is named."""

import json
from pathlib import Path

import pytest
import torch
from tests.tiny import FAMILIES, Family, rows_pack, save_tiny, tiny_policy
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from amenable.chat.encode import TokenRow
from amenable.chat.template import FORMS
from amenable.chat.trees import Pack, TokenTree
from amenable.models.policy import Policy, compute_dtype
from amenable.models.tree_attention import reads_trees
from amenable.records.errors import ModelError, NotFoundError

ROWS = torch.tensor([[2, 4, 20, 21, 5, 30], [2, 7, 40, 41, 0, 0]])  # the second has two of padding


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_are_transformers_own(tmp_path: Path, family: Family):
    policy = tiny_policy(tmp_path / "base", family)
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    with torch.no_grad():
        ours = policy.scored(rows_pack(ROWS))
        logits = network(input_ids=ROWS).logits[:, :-1]
    theirs = logits.log_softmax(-1).gather(-1, ROWS[:, 1:, None])[..., 0].flatten()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_what_follows_on_the_right_changes_nothing_before_it(tmp_path: Path):
    policy = tiny_policy(tmp_path / "base")
    with torch.no_grad():
        alone = policy.hidden(rows_pack(ROWS[1:, :4]))
        beside = policy.hidden(rows_pack(ROWS))[6:10]
    torch.testing.assert_close(alone, beside, rtol=1e-5, atol=1e-5)


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


def test_a_tokenizer_of_another_model_is_refused_before_it_reads_past_the_end(tmp_path: Path):
    policy = tiny_policy(tmp_path / "m")
    rows = len(policy.head_weight)
    words = {f"w{number}": number for number in range(rows)}
    for extra, fits in (({}, True), ({"one more": rows}, False)):
        foreign = Tokenizer(WordLevel({**words, **extra}, unk_token="w0"))
        foreign.add_special_tokens(["<picture>"])  # beyond all rows, but no text becomes it
        foreign.save(str(tmp_path / "m" / "tokenizer.json"))
        if fits:
            assert policy.encoder("plain").encode_text("w1")
        else:
            with pytest.raises(
                ModelError, match=rf"{rows + 1:,} tokens, its network only {rows:,}"
            ):
                policy.encoder("plain")


def test_a_head_with_a_bias_is_refused_before_it_is_left_out(tmp_path: Path):
    config = PhiConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    PhiForCausalLM(config).save_pretrained(tmp_path / "phi")
    with pytest.raises(ModelError, match=r"kind 'phi' bend their logits \(a bias of the head\)"):
        Policy.load(tmp_path / "phi", torch.float32)


def test_a_family_that_cannot_read_trees_gives_the_same_by_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    config = BloomConfig(vocab_size=50, hidden_size=32, n_layer=2, n_head=2)
    BloomForCausalLM(config).save_pretrained(tmp_path / "bloom")
    policy = Policy.load(tmp_path / "bloom", torch.float32)
    assert not reads_trees(policy.network)
    assert "read the prompt anew for every reply" in caplog.text
    branches = tuple(TokenRow(tokens, [True] * len(tokens)) for tokens in ([7, 8], [9, 10, 11]))
    with torch.no_grad():
        found = policy.scored(Pack.of([TokenTree([3, 4, 5], branches), TokenTree([6], branches)]))
        expected: list[float] = []
        for prefix in ([3, 4, 5], [6]):
            for branch in branches:
                ids = torch.tensor([prefix + branch.tokens])
                logits = policy.network(input_ids=ids).logits[0, :-1].log_softmax(-1)
                picked = logits.gather(-1, ids[0, 1:, None])[:, 0]
                expected += picked[len(prefix) - 1 :].tolist()
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def test_capped_logits_are_refused(tmp_path: Path):
    folder = save_tiny(tmp_path / "base")
    change_config(folder, final_logit_softcapping=30.0)
    with pytest.raises(ModelError, match="final_logit_softcapping"):
        Policy.load(folder, torch.float32)


def test_a_model_of_texts_and_pictures_is_refused_in_one_line(tmp_path: Path):
    folder = save_tiny(tmp_path / "base")
    text = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(
        json.dumps({"model_type": "gemma3", "text_config": text}), "utf-8"
    )
    with pytest.raises(ModelError, match=r"^Models of the kind 'gemma3' .* only text-only models"):
        Policy.load(folder, torch.float32)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")]
)
def test_lack_of_memory_is_not_told_as_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def no_room(*_: object, **__: object) -> None:
        raise error

    folder = save_tiny(tmp_path / "base")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", no_room)
    with pytest.raises(type(error)) as caught:
        Policy.load(folder)
    assert caught.value is error


def test_a_gpu_that_only_emulates_bf16_computes_in_fp32(monkeypatch: pytest.MonkeyPatch):
    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert compute_dtype() == torch.float32


def test_a_folder_from_elsewhere_has_no_notes_of_ours(tmp_path: Path):
    assert Policy.read_info(tmp_path) == {}
    assert Policy.read_info(save_tiny(tmp_path / "base"))["family_form"] == "gemma"
