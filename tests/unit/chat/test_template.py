"""The pieces of every chat form against the same form as other programs render it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tests.tiny import BEGIN_OF, END_OF, FAMILIES, Family, tiny_tokenizer

from amenable.chat.encode import Encoder
from amenable.chat.template import FORMS, ChatForm, all_markers, chat_form
from amenable.records.conversation import Conversation, Message
from amenable.records.errors import NotFoundError

# Whatever people write that holds no marker: every marker opens with "<".
benign = st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), max_size=40)


@st.composite
def chats(draw: st.DrawFn, *, ends_with_reply: bool) -> Conversation:
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append(Message("system", draw(benign)))
    for _ in range(draw(st.integers(0, 2))):
        messages += [Message("user", draw(benign)), Message("assistant", draw(benign))]
    messages.append(Message("user", draw(benign)))
    if ends_with_reply:
        messages.append(Message("assistant", draw(benign)))
    return Conversation(tuple(messages))


def encoder_of(family: Family) -> Encoder:
    tokenizer = tiny_tokenizer(family)
    begin = BEGIN_OF[family]
    return Encoder(
        tokenizer,
        chat_form(family),
        begin=tokenizer.token_to_id(begin) if begin else None,
        end_of_text=tokenizer.token_to_id(END_OF[family]),
    )


ENCODERS = {family: encoder_of(family) for family in (*FAMILIES, "transcript")}


def rendered(form: ChatForm, family: Family, chat: Conversation, *, prompt: bool) -> str:
    template = ImmutableSandboxedEnvironment().from_string(form.jinja)
    return template.render(
        messages=chat.to_json(),
        add_generation_prompt=prompt,
        bos_token=BEGIN_OF[family] or "",
        eos_token=END_OF[family],
    )


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None)  # machines are shared
@given(chat=chats(ends_with_reply=False))
def test_pieces_give_the_ids_of_the_rendered_prompt(family: Family, chat: Conversation):
    encoder = ENCODERS[family]
    text = rendered(encoder.form, family, chat, prompt=True)
    expected = encoder.tokenizer.encode(text, add_special_tokens=False).ids
    assert encoder.prompt_ids(chat) == expected


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None)  # machines are shared
@given(chat=chats(ends_with_reply=True))
def test_pieces_give_the_ids_of_the_rendered_conversation(family: Family, chat: Conversation):
    encoder = ENCODERS[family]
    text = rendered(encoder.form, family, chat, prompt=False)
    expected = encoder.tokenizer.encode(text, add_special_tokens=False).ids
    assert encoder.training_row(chat).tokens == expected


@settings(deadline=None)  # machines are shared
@given(chat=chats(ends_with_reply=True))
def test_a_transcript_reads_the_same_in_other_programs(chat: Conversation):
    """As text: without markers of its own, a border may fall into another token elsewhere."""
    encoder = ENCODERS["transcript"]
    pieces = encoder.form.training(chat)
    ours = "".join(piece.text for piece in pieces)
    ours = ours.replace("{begin of text}", "").replace("{end of text}", END_OF["transcript"])
    assert ours == rendered(encoder.form, "transcript", chat, prompt=False)


@pytest.mark.parametrize("family", [*FAMILIES, "transcript"])
@settings(deadline=None)  # machines are shared
@given(chat=chats(ends_with_reply=False), reply=benign)
def test_training_and_serving_see_the_same_prompt(family: Family, chat: Conversation, reply: str):
    encoder = ENCODERS[family]
    prompt = encoder.prompt_ids(chat)
    assert encoder.training_row(chat.with_reply(reply)).tokens[: len(prompt)] == prompt


@pytest.mark.parametrize("family", ["gemma", "llama3"])
@settings(deadline=None)  # machines are shared
@given(chat=chats(ends_with_reply=True))
def test_there_is_exactly_one_token_that_begins_a_text(family: Family, chat: Conversation):
    encoder = ENCODERS[family]
    for ids in (encoder.training_row(chat).tokens, encoder.prompt_ids(chat)):
        assert [at for at, id_ in enumerate(ids) if id_ == encoder.begin] == [0]


@pytest.mark.parametrize("form", ["plain", "helped"])
def test_forms_for_a_bare_base_begin_once_where_its_family_wants_it(form: str):
    tokenizer = tiny_tokenizer("gemma")
    encoder = Encoder(tokenizer, chat_form(form), begin=2, end_of_text=1)
    assert encoder.prompt_ids(Conversation.of(("user", "Hi"))).count(2) == 1


def test_gemma_folds_the_system_text_into_the_first_request():
    chat = Conversation.of(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!"))
    text = "".join(piece.text for piece in chat_form("gemma").training(chat))
    assert text == (
        "<bos><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n"
        "<start_of_turn>model\nHello!<end_of_turn>\n"
    )


@pytest.mark.parametrize("name", FORMS)
def test_only_replies_and_their_ends_are_targets(name: str):
    chat = Conversation.of(("system", "S"), ("user", "U"), ("assistant", "A"))
    targets = [piece for piece in chat_form(name).training(chat) if piece.is_target]
    contents = [piece.text for piece in targets if not piece.is_structure]
    # The forms that show a base what a reply looks like are never trained with.
    assert contents == ([] if name in ("plain", "helped") else ["A"])
    ends = [piece.text for piece in targets if piece.is_structure]
    end = chat_form(name).end_of_turn
    assert ends == ([] if name in ("plain", "helped") else [end or "{end of text}"])


def test_an_unknown_form_is_named_with_those_there_are():
    with pytest.raises(NotFoundError, match=r"'vicuna'.*chatml, gemma"):
        chat_form("vicuna")


def test_every_familys_markers_are_known_to_all():
    assert {"<start_of_turn>", "<|im_end|>", "<|eot_id|>"} <= set(all_markers())
