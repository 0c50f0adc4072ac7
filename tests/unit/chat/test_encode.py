"""What becomes a control token, what stays text, and where the loss counts."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import BEGIN_OF, END_OF, FAMILIES, SPECIALS, Family, tiny_tokenizer, tokenizer_json
from tokenizers import Tokenizer, models, normalizers

from amenable.chat.encode import Encoder
from amenable.chat.template import BEGIN, END, Piece, all_markers, chat_form
from amenable.records.conversation import Conversation, Message
from amenable.records.errors import ModelError

ALL: tuple[Family, ...] = (*FAMILIES, "transcript")
# The grammar of mischief: every marker of every family, halves of them, what only looks like one.
SPELLINGS = sorted(
    {*all_markers(), *(text for texts in SPECIALS.values() for text in texts), BEGIN, END}
)
HALVES = [
    part for text in SPELLINGS for part in (text[:-1], text[1:], text[: len(text) // 2], text[-3:])
]
LOOKALIKES = ["<start_of_turn >", "< bos>", "<|IM_END|>", "\u200b<eos>", "[INST]", "</s>", "<b>"]


def nested(text: str) -> str:
    middle = len(text) // 2
    return text[:middle] + text + text[middle:]


mischief = st.lists(
    st.one_of(
        st.sampled_from(SPELLINGS),
        st.sampled_from(SPELLINGS).map(nested),
        st.sampled_from(HALVES),
        st.sampled_from(LOOKALIKES),
        st.sampled_from(["user\n", "model\n", "assistant\n", "\n", " ", "▁▁", "{{ bos_token }}"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    ),
    max_size=6,
).map("".join)


def make_encoder(family: Family) -> Encoder:
    tokenizer = tiny_tokenizer(family)
    begin = BEGIN_OF[family]
    return Encoder(
        tokenizer,
        chat_form(family),
        begin=tokenizer.token_to_id(begin) if begin else None,
        end_of_text=tokenizer.token_to_id(END_OF[family]),
    )


ENCODERS = {family: make_encoder(family) for family in ALL}


def structure(encoder: Encoder, ids: list[int]) -> list[int]:
    return [id_ for id_ in ids if id_ in encoder.control_ids]


@pytest.mark.parametrize("family", ALL)
@settings(deadline=None)  # machines are shared
@given(texts=st.tuples(mischief, mischief, mischief, mischief))
def test_no_content_changes_the_structure(family: Family, texts: tuple[str, str, str, str]):
    """Each content replaced by plain letters leaves the same sequence of structural ids."""
    encoder = ENCODERS[family]
    roles = ("system", "user", "assistant", "user")
    chat = Conversation(tuple(Message(r, t) for r, t in zip(roles, texts, strict=True)))
    # A system text of nothing but spaces leaves no piece behind; a letter would.
    letters = ["x" if text.strip() else "" for text in texts]
    plain = Conversation(tuple(Message(r, t) for r, t in zip(roles, letters, strict=True)))
    assert structure(encoder, encoder.prompt_ids(chat)) == structure(
        encoder, encoder.prompt_ids(plain)
    )
    row, plain_row = (encoder.training_row(each.with_reply("x")) for each in (chat, plain))
    assert structure(encoder, row.tokens) == structure(encoder, plain_row.tokens)


@pytest.mark.parametrize("family", ALL)
@settings(deadline=None)  # machines are shared
@given(text=mischief)
def test_typed_markers_stay_text_and_come_back_as_typed(family: Family, text: str):
    encoder = ENCODERS[family]
    ids = encoder.encode_text(text)
    assert not encoder.control_ids.intersection(ids)
    # Gemma writes spaces as ▁, so a typed ▁ comes back as a space: its own convention.
    expected = text.replace("▁", " ") if family == "gemma" else text
    assert encoder.decode(ids) == expected


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("text", [BEGIN, END])
def test_our_own_placeholders_are_text_when_typed(family: Family, text: str):
    encoder = ENCODERS[family]
    assert encoder.decode(encoder.encode_piece(Piece(text, is_structure=False))) == text


def test_html_names_and_spaces_are_text_although_their_tokens_are_special():
    encoder = ENCODERS["gemma"]
    bold = encoder.tokenizer.token_to_id("<b>")
    assert bold in encoder.encode_text("a <b>word</b>")
    assert bold not in encoder.control_ids
    assert encoder.decode([bold]) == "<b>"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_counts_on_replies_and_their_ends_and_on_no_header(family: Family):
    encoder = ENCODERS[family]
    chat = Conversation.of(("user", "Hi"), ("assistant", "Yes."), ("user", "So?"))
    row = encoder.training_row(chat.with_reply("No."))
    end = encoder.tokenizer.token_to_id(encoder.form.end_of_turn or "")
    targets = [id_ for id_, counts in zip(row.tokens, row.is_target, strict=True) if counts]
    expected = [*encoder.encode_text("Yes."), end, *encoder.encode_text("No."), end]
    assert targets == expected
    assert not row.is_target[0]


def test_only_the_last_reply_counts_where_that_is_asked_for():
    encoder = ENCODERS["gemma"]
    chat = Conversation.of(("user", "Hi"), ("assistant", "Yes."), ("user", "So?"))
    row = encoder.reply_row(chat, "No.")
    targets = [id_ for id_, counts in zip(row.tokens, row.is_target, strict=True) if counts]
    end = encoder.tokenizer.token_to_id("<end_of_turn>")
    assert targets == [*encoder.encode_text("No."), end]


def test_a_transcript_ends_its_replies_as_texts_end():
    encoder = ENCODERS["transcript"]
    row = encoder.training_row(Conversation.of(("user", "Hi"), ("assistant", "Yes.")))
    last = max(at for at, counts in enumerate(row.is_target) if counts)
    assert row.tokens[last] == encoder.end_of_text
    assert encoder.stop_ids == (encoder.end_of_text,)


@pytest.mark.parametrize("family", FAMILIES)
def test_end_of_turn_and_end_of_text_stop_a_reply_and_padding_does_not(family: Family):
    encoder = ENCODERS[family]
    names = [encoder.tokenizer.id_to_token(id_) for id_ in encoder.stop_ids]
    assert names == [encoder.form.end_of_turn, END_OF[family]]


def test_a_form_whose_markers_the_tokenizer_lacks_is_refused_by_name():
    encoder = Encoder(tiny_tokenizer("gemma"), chat_form("chatml"), begin=2, end_of_text=1)
    with pytest.raises(ModelError, match=r"no token for '<\|im_start\|>'.*'chatml'"):
        _ = encoder.marker_ids


def test_half_a_character_is_kept_back_as_a_replacement():
    encoder = ENCODERS["chatml"]
    ids = encoder.encode_text("ж")
    assert len(ids) == 2
    assert encoder.decode(ids[:1]) == "\ufffd"
    assert encoder.decode(ids) == "ж"


@pytest.mark.parametrize("family", ALL)
def test_the_surface_of_tokens_reads_as_the_text(family: Family):
    encoder = ENCODERS[family]
    ids = encoder.prompt_ids(Conversation.of(("user", "Good morning, friend.")))
    assert "morning" in "".join(encoder.surface(id_) for id_ in ids)
    for marker in encoder.form.markers[:1]:
        assert any(encoder.surface(id_) == marker for id_ in ids)


def test_a_tokenizer_that_joins_letters_across_the_cut_is_refused():
    """The last line of defence: nothing that became a control token leaves the encoder."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "<": 1, "<eos>": 2}, unk_token="[UNK]"))
    # "start_of_turn>" alone becomes the marker here, so cutting before it does not help.
    tokenizer.normalizer = normalizers.Replace("end_of_turn>", "<eos>")
    tokenizer.add_special_tokens(["<eos>", "<end_of_turn>"])
    encoder = Encoder(tokenizer, chat_form("gemma"), begin=None, end_of_text=2)
    with pytest.raises(ModelError, match="cannot be told from control tokens"):
        encoder.encode_text("<end_of_turn>")


def test_a_broken_tokenizer_file_is_named(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("gemma")[:500], encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer.json cannot be read as a tokenizer"):
        Encoder.load(tmp_path, chat_form("gemma"), bos=None, end_of_text=None)


@pytest.mark.parametrize("family", ALL)
def test_a_plain_text_stands_between_what_begins_and_what_ends_one(family: Family):
    encoder = ENCODERS[family]
    ids = encoder.encode_text("By the sea.")
    begin = [] if encoder.begin is None else [encoder.begin]
    row = encoder.text_row("By the sea.")
    assert row.tokens == [*begin, *ids, encoder.end_of_text]
    assert row.is_target == [False] + [True] * (len(row.tokens) - 1)
    assert encoder.text_row("By the sea.", has_end=False).tokens == row.tokens[:-1]
