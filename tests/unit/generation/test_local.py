"""The local engine on tiny models: batches, seeds, stops, streams and neighbours."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import CONTEXT, Family, rows_pack, shake, tiny_policy, tiny_tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM

from amenable.chat.encode import Encoder, TokenRow
from amenable.chat.template import chat_form
from amenable.chat.trees import Pack, TokenTree
from amenable.generation.engine import Request
from amenable.generation.local import LocalEngine, Row, Speaker
from amenable.generation.sampling import next_token
from amenable.models.adapters import AdapterShape
from amenable.models.merge import save_merged
from amenable.models.policy import Policy
from amenable.records.conversation import Conversation
from amenable.records.errors import ConfigError, NotFoundError
from amenable.records.sample import ModelRef, Sample, SamplingSettings

TEXTS = (
    "Hi",
    "Write a short poem about the sea, the moon and a boat that never comes home again.",
    "What is the capital of France? Answer in one short sentence.",
    "Give me three tips for sleeping better, and one for working better after it, please. " * 2,
    "Who?",
)
GREEDY = SamplingSettings(max_new_tokens=24)
FREE = SamplingSettings(max_new_tokens=24, temperature=1.0, top_p=0.95)


def engine_of(policy: Policy, family: Family = "gemma") -> LocalEngine:
    """The base as `base`, and two adapters that say something else each."""
    speakers = {"base": Speaker(ModelRef("base", "0" * 64), policy, None, policy.encoder(family))}
    for number, name in enumerate(("one", "two"), start=1):
        policy.adapters.add(name, AdapterShape(rank=2, alpha=8.0, marker_ids=(4, 5)), seed=number)
        shake(policy, name, number, size=0.2)
        speakers[name] = Speaker(ModelRef(name, "1" * 64), policy, name, policy.encoder(family))
    return LocalEngine(speakers)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    return engine_of(tiny_policy(tmp_path_factory.mktemp("models") / "base"))


def ask(
    text: str, settings: SamplingSettings = GREEDY, model: str = "base", seed: int = 0
) -> Request:
    prompt = Conversation.of(("user", text))
    return Request(prompt=prompt, model=model, settings=settings, seed=seed)


def whole(engine: LocalEngine, request: Request) -> tuple[list[str], Sample]:
    *pieces, sample = engine.stream(request)
    assert isinstance(sample, Sample)
    return [piece for piece in pieces if isinstance(piece, str)], sample


@pytest.mark.parametrize("settings", [GREEDY, FREE], ids=["greedy", "free"])
def test_a_batch_of_ragged_prompts_is_each_on_its_own(
    engine: LocalEngine, settings: SamplingSettings
):
    requests = [ask(text, settings, seed=at) for at, text in enumerate(TEXTS)]
    together = engine.generate(requests)
    alone = [engine.generate([request])[0] for request in requests]
    assert together == alone
    assert engine.generate(requests[::-1])[::-1] == alone


@pytest.mark.parametrize("family", ["gemma", "chatml"])
def test_greedy_replies_are_transformers_own(tmp_path: Path, family: Family):
    policy = tiny_policy(tmp_path / "base", family)
    encoder = policy.encoder(family)
    engine = LocalEngine({"base": Speaker(ModelRef("base", "0" * 64), policy, None, encoder)})
    network: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    for text in TEXTS:
        ids = encoder.prompt_ids(Conversation.of(("user", text)))
        theirs = network.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            max_new_tokens=GREEDY.max_new_tokens,
            do_sample=False,
            eos_token_id=list(encoder.stop_ids),
        )[0, len(ids) :].tolist()
        reply = engine.generate([ask(text)])[0]
        expected = [id_ for id_ in theirs if id_ not in encoder.stop_ids]
        assert reply.reply == encoder.decode(expected).rstrip("\ufffd").strip()
        assert reply.num_tokens == len(expected)


def test_seeds_decide_and_nothing_else_does(engine: LocalEngine):
    first = engine.generate([ask("Hi", FREE, seed=1), ask("Hi", FREE, seed=2)])
    again = engine.generate([ask("Who?", FREE, seed=9), ask("Hi", FREE, seed=2)])
    assert first[0].reply != first[1].reply
    assert first[1] == again[1]


def test_models_on_one_backbone_do_not_disturb_each_other(engine: LocalEngine):
    models = ("base", "one", "two")
    alone = [engine.generate([ask("Hi", model=model)])[0].reply for model in models]
    assert len(set(alone)) == 3
    mixed = engine.generate([ask("Hi", model=model) for model in (*models, *models[::-1])])
    assert [sample.reply for sample in mixed] == alone + alone[::-1]
    assert [sample.model.name for sample in mixed] == [*models, *models[::-1]]


def test_streams_advance_side_by_side(engine: LocalEngine):
    models = ("base", "one", "two")
    alone = [whole(engine, ask("Hi", model=model))[1] for model in models]
    streams = [engine.stream(ask("Hi", model=model)) for model in models]
    last: dict[int, Sample] = {}
    while len(last) < 3:
        for at, stream in enumerate(streams):
            for piece in stream:
                if isinstance(piece, Sample):
                    last[at] = piece
                break
    assert [last[at] for at in range(3)] == alone


def test_threads_take_turns(engine: LocalEngine):
    models = ("base", "one", "two") * 2
    alone = [engine.generate([ask("Hi", model=model)])[0] for model in models]
    found: list[Sample | None] = [None] * len(models)

    def work(at: int) -> None:
        found[at] = engine.generate([ask("Hi", model=models[at])])[0]

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


@pytest.mark.parametrize("settings", [GREEDY, FREE], ids=["greedy", "free"])
@pytest.mark.parametrize("text", TEXTS[:3])
def test_the_pieces_of_a_stream_make_the_reply(
    engine: LocalEngine, settings: SamplingSettings, text: str
):
    pieces, sample = whole(engine, ask(text, settings))
    assert len(pieces) > 3
    assert "".join(pieces).strip() == sample.reply
    assert sample == engine.generate([ask(text, settings)])[0]


def test_characters_of_several_tokens_come_whole(engine: LocalEngine):
    """Random bytes: whatever is shown stays, and no half character is ever shown at the end."""
    for seed in range(8):
        pieces, sample = whole(engine, ask("Hi", FREE, seed=seed))
        assert not any(piece.endswith("\ufffd") for piece in pieces)
        assert "".join(pieces).strip() == sample.reply


def test_a_reply_cut_in_the_second_of_two_rare_characters_keeps_the_first():
    encoder = Encoder(tiny_tokenizer("gemma"), chat_form("gemma"), begin=2, end_of_text=1)
    ids = encoder.encode_text("😀😁")
    assert len(ids) == 8  # four bytes each
    row = Row(0, ask("Hi", SamplingSettings(max_new_tokens=6)), encoder)
    shown: list[str] = []
    for id_ in ids[:6]:
        row.accept(id_)
        shown.append(row.safe_text())
    assert shown == ["", "", "", "😀", "😀", "😀"]
    assert (row.text, row.stop_reason) == ("😀", "length")


def stop_after(engine: LocalEngine, choose: Callable[[str], str]) -> tuple[str, str, Sample]:
    """Ask again with a stop text taken out of the reply."""
    free = engine.generate([ask("Hi")])[0].reply
    stop = choose(free)
    settings = SamplingSettings(max_new_tokens=24, stop=("never said", stop))
    pieces, sample = whole(engine, ask("Hi", settings))
    assert "".join(pieces).strip() == sample.reply
    assert sample == engine.generate([ask("Hi", settings)])[0]
    return free, stop, sample


@pytest.mark.parametrize("length", [1, 2, 7, 15])
def test_a_stop_text_ends_the_reply_across_the_borders_of_tokens(engine: LocalEngine, length: int):
    free, stop, sample = stop_after(engine, lambda text: text[10 : 10 + length])
    assert sample.reply == free[: free.find(stop)].strip()
    assert sample.stop_reason == "stop"


def test_what_only_begins_a_stop_text_is_shown_in_the_end(engine: LocalEngine):
    free, _, sample = stop_after(engine, lambda text: text[-4:] + "§")
    assert sample.reply == free
    assert sample.stop_reason == "length"


def test_a_reply_that_is_too_long_says_so(engine: LocalEngine):
    sample = engine.generate([ask("Hi", SamplingSettings(max_new_tokens=3))])[0]
    assert (sample.stop_reason, sample.num_tokens) == ("length", 3)


def test_the_end_of_turn_ends_a_reply_and_is_not_part_of_it(tmp_path: Path):
    """A backbone taught by hand: whatever stands before, the end of turn is likeliest."""
    policy = tiny_policy(tmp_path / "base")
    policy.adapters.add("ends", AdapterShape(rank=2, alpha=8.0, marker_ids=(5,)), seed=1)
    encoder = policy.encoder("gemma")
    ids = torch.tensor([encoder.prompt_ids(Conversation.of(("user", "Hi")))])
    with torch.no_grad(), policy.using("ends"):
        direction = policy.hidden(rows_pack(ids))[-1]
        policy.adapters.markers["ends"].rows_MH[0] = 100 * direction
    engine = LocalEngine({"ends": Speaker(ModelRef("ends", "0" * 64), policy, "ends", encoder)})
    sample = engine.generate([ask("Hi", model="ends")])[0]
    assert (sample.reply, sample.stop_reason, sample.num_tokens) == ("", "stop", 0)
    assert engine.end_log_prob("ends", Conversation.of(("user", "Hi")), "") == pytest.approx(0)


def test_a_cancelled_stream_stops_within_a_step_and_says_so(engine: LocalEngine):
    heard: list[str] = []
    *_, sample = (
        heard.append(piece) or piece if isinstance(piece, str) else piece
        for piece in engine.stream(ask("Hi"), is_cancelled=lambda: len(heard) >= 2)
    )
    assert isinstance(sample, Sample)
    assert (sample.stop_reason, len(heard)) == ("cancelled", 2)
    assert sample.reply == "".join(heard).strip()
    assert sample.num_tokens < 24


def test_more_requests_than_fit_at_once_come_back_in_order(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("amenable.generation.local.ROWS_AT_ONCE", 2)
    requests = [ask(text) for text in TEXTS]
    heard: dict[int, Sample] = {}
    samples = engine.generate(requests, heard.__setitem__)
    assert [sample.prompt for sample in samples] == [request.prompt for request in requests]
    assert [heard[at] for at in range(len(requests))] == samples


def test_a_prompt_longer_than_the_context_is_refused(engine: LocalEngine):
    with pytest.raises(ConfigError, match=f"leave room for 24 more within {CONTEXT}"):
        engine.generate([ask("word " * CONTEXT)])
    with pytest.raises(ConfigError, match="the prompt"):
        next(engine.stream(ask("word " * CONTEXT)))


def test_a_prompt_fits_with_its_longest_reply_to_the_last_token(engine: LocalEngine):
    prompt = Conversation.of(("user", "Hi"))
    room = CONTEXT - len(engine.speaker("base").encoder.prompt_ids(prompt))
    exactly, beyond = (
        Request(prompt=prompt, model="base", settings=SamplingSettings(max_new_tokens=num))
        for num in (room, room + 1)
    )
    assert engine.fits(exactly)
    assert not engine.fits(beyond)
    with pytest.raises(ConfigError, match="the prompt"):
        engine.generate([beyond])


def test_an_unknown_model_is_named_with_the_known_ones(engine: LocalEngine):
    with pytest.raises(NotFoundError, match=r"'ghost'.*base, one, two"):
        engine.generate([ask("Hi", model="ghost")])


def test_what_the_model_sees_is_its_prompt_token_by_token(engine: LocalEngine):
    prompt = Conversation.of(("user", "Say <eos>"))
    pieces = engine.tokens("base", prompt)
    assert [piece.id for piece in pieces] == engine.speaker("base").encoder.prompt_ids(prompt)
    text = "".join(piece.text for piece in pieces)
    assert text == "<bos><start_of_turn>user\nSay <eos><end_of_turn>\n<start_of_turn>model\n"
    assert "".join(piece.text for piece in pieces if not piece.is_structure) == "Say <eos>"


def their_log_probs(network: Any, ids: list[int]) -> Tensor:
    """Of every token but the first, by plain transformers: one row, no padding, no cache."""
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([ids])).logits[0, :-1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]


@pytest.mark.parametrize("model", ["base", "one"])
def test_log_probs_of_texts_are_transformers_own(engine: LocalEngine, tmp_path: Path, model: str):
    speaker = engine.speaker(model)
    save_merged(speaker.policy, speaker.adapter, tmp_path / "whole", chat_form("gemma"))
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    found = engine.text_log_probs(model, TEXTS)
    for text, (total, num) in zip(TEXTS, found, strict=True):
        expected = their_log_probs(network, [2, *speaker.encoder.encode_text(text)])
        assert num == len(expected)
        assert total == pytest.approx(float(expected.sum()), rel=1e-5)


def test_a_long_text_is_read_in_windows(engine: LocalEngine):
    """Each piece of 5 stands alone, and of each the first token is given."""
    speaker = engine.speaker("base")
    ids = [2, *speaker.encoder.encode_text(TEXTS[1])]
    ((total, num),) = engine.text_log_probs("base", [TEXTS[1]], window=5)
    pieces = [ids[start : start + 5] for start in range(0, len(ids) - 1, 4)]
    with speaker.policy.using(None):
        network = speaker.policy.network
        expected = sum(float(their_log_probs(network, piece).sum()) for piece in pieces)
    assert num == len(ids) - 1
    assert total == pytest.approx(expected, rel=1e-4)


def test_left_and_right_padding_give_the_same_log_probs(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
):
    """Generation pads on the left, training on the right, transformers is asked without any."""
    heard: list[list[tuple[int, float]]] = [[] for _ in TEXTS]

    def listen(logits_V: Tensor, settings: SamplingSettings, seed: int, position: int) -> int:
        token = next_token(logits_V, settings, seed, position)
        heard[seed].append((token, float(logits_V.log_softmax(-1)[token])))
        return token

    monkeypatch.setattr("amenable.generation.local.next_token", listen)
    engine.generate([ask(text, FREE, seed=at) for at, text in enumerate(TEXTS)])

    speaker = engine.speaker("base")
    network = AutoModelForCausalLM.from_pretrained(speaker.policy.folder, dtype=torch.float32)
    prompts = [speaker.encoder.prompt_ids(Conversation.of(("user", text))) for text in TEXTS]
    replies = [[token for token, _ in reply] for reply in heard]
    pack = Pack.of(
        [
            TokenTree(prompt, (TokenRow(reply, [True] * len(reply)),))
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
    )
    with torch.no_grad(), speaker.policy.using(None):
        packed_R = speaker.policy.scored(pack)
    for at, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        expected = their_log_probs(network, prompt + reply)[len(prompt) - 1 :]
        left = torch.tensor([log_prob for _, log_prob in heard[at]])
        torch.testing.assert_close(left, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(packed_R[pack.branches_R == at], expected, rtol=1e-4, atol=1e-4)
