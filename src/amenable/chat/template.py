"""A conversation as pieces, each structure or content, in the chat form of a model family.

Structure is what the form adds; content is what people and models wrote. The encoder turns only
structure into control tokens, so a marker typed by a user stays text. The loss mask is stated
here, where the text is made, and never searched for afterwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from amenable.records.conversation import Conversation, Role
from amenable.records.errors import NotFoundError


class Piece(NamedTuple):
    text: str
    is_structure: bool
    is_target: bool = False
    """True where the loss counts: a reply, and the marker that ends it."""


Writer = Callable[[Conversation], list[Piece]]


@dataclass(frozen=True, slots=True)
class ChatForm:
    """How one family writes a conversation.

    `open_reply` is what stands before a reply; `end_of_turn` ends it; `markers` are the tokens
    that a base model of this family may never have seen; `jinja` is the same form for other
    programs, written by us and checked against `pieces` in the tests.
    """

    name: str
    write: Writer
    open_reply: str
    end_of_turn: str | None
    markers: tuple[str, ...]
    jinja: str
    stop_texts: tuple[str, ...] = ()

    def prompt(self, conversation: Conversation) -> list[Piece]:
        """Everything up to where the model speaks."""
        return [*self.write(conversation), Piece(self.open_reply, is_structure=True)]

    def training(self, conversation: Conversation) -> list[Piece]:
        """The whole conversation, every reply a target."""
        return self.write(conversation)


def _turns(conversation: Conversation, header: Callable[[str], str], end: str) -> list[Piece]:
    """Turns that open with a header and close with one marker, then a line break."""
    pieces: list[Piece] = []
    for message in conversation.messages:
        is_target = message.role == "assistant"
        pieces.append(Piece(header(message.role), is_structure=True))
        pieces.append(Piece(message.text.strip(), is_structure=False, is_target=is_target))
        pieces.append(Piece(end, is_structure=True, is_target=is_target))
        pieces.append(Piece("\n", is_structure=True))
    return pieces


def _gemma(conversation: Conversation) -> list[Piece]:
    def header(role: str) -> str:
        return f"<start_of_turn>{'model' if role == 'assistant' else role}\n"

    pieces = _turns(conversation.without_system(), header, "<end_of_turn>")
    system = (conversation.system or "").strip()
    if system:
        # Gemma knows no system role: the text stands before the first request, as in its own form.
        folded = [
            Piece(system, is_structure=False),
            Piece("\n\n", is_structure=True),
        ]
        pieces[1:1] = folded
    return [Piece("<bos>", is_structure=True), *pieces]


def _chatml(conversation: Conversation) -> list[Piece]:
    return _turns(conversation, lambda role: f"<|im_start|>{role}\n", "<|im_end|>")


def _llama3(conversation: Conversation) -> list[Piece]:
    pieces = [Piece("<|begin_of_text|>", is_structure=True)]
    for message in conversation.messages:
        is_target = message.role == "assistant"
        header = f"<|start_header_id|>{message.role}<|end_header_id|>\n\n"
        pieces.append(Piece(header, is_structure=True))
        pieces.append(Piece(message.text.strip(), is_structure=False, is_target=is_target))
        pieces.append(Piece("<|eot_id|>", is_structure=True, is_target=is_target))
    return pieces


SPEAKERS: dict[Role, str] = {"system": "Note", "user": "User", "assistant": "Assistant"}
# Stand for whatever tokens a tokenizer opens and closes a text with, if any.
BEGIN, END = "{begin of text}", "{end of text}"


def _plain(conversation: Conversation) -> list[Piece]:
    """The bare text, as a base model would find it on a page; several turns as a transcript."""
    pieces = [Piece(BEGIN, is_structure=True)]
    if len(conversation.messages) == 1:
        pieces.append(Piece(conversation.messages[0].text.strip(), is_structure=False))
        return [*pieces, Piece("\n", is_structure=True)]
    for message in conversation.messages:
        pieces.append(Piece(f"{SPEAKERS[message.role]}:", is_structure=True))
        # With its space, as tokenizers of running text know a word.
        pieces.append(Piece(f" {message.text.strip()}", is_structure=False))
        pieces.append(Piece("\n\n", is_structure=True))
    return pieces


def _transcript(conversation: Conversation) -> list[Piece]:
    """For versions of a base that knows no markers: names on lines, each reply ended as a text."""
    pieces = [Piece(BEGIN, is_structure=True)]
    for message in conversation.messages:
        is_target = message.role == "assistant"
        pieces.append(Piece(f"{SPEAKERS[message.role]}:\n", is_structure=True))
        pieces.append(Piece(message.text.strip(), is_structure=False, is_target=is_target))
        if is_target:
            pieces.append(Piece(END, is_structure=True, is_target=True))
        pieces.append(Piece("\n\n", is_structure=True))
    return pieces


# Three fixed examples that show a base model what a request and a reply look like.
HELPED_EXAMPLES: tuple[tuple[str, str], ...] = (
    ("Name the season that follows winter.", "Spring follows winter."),
    (
        "Give me three things to pack for a day at the lake.",
        "- Swimwear\n- A towel\n- Sun cream",
    ),
    ("Is 'tomatto' spelled correctly? Reply with yes or no only.", "No"),
)


def _helped(conversation: Conversation) -> list[Piece]:
    pieces = [Piece(BEGIN, is_structure=True)]
    examples = "".join(
        f"Request: {request}\nReply: {reply}\n\n" for request, reply in HELPED_EXAMPLES
    )
    pieces.append(Piece(examples, is_structure=True))
    for message in conversation.messages:
        name = {"system": "Rule", "user": "Request", "assistant": "Reply"}[message.role]
        end = "\n\n" if message.role == "assistant" else "\n"
        pieces.append(Piece(f"{name}:", is_structure=True))
        pieces.append(Piece(f" {message.text.strip()}", is_structure=False))
        pieces.append(Piece(end, is_structure=True))
    return pieces


GEMMA_JINJA = (
    "{{ bos_token }}"
    "{%- if messages[0]['role'] == 'system' -%}"
    "{%- set system = messages[0]['content'] | trim -%}{%- set turns = messages[1:] -%}"
    "{%- set first = system + '\\n\\n' if system else '' -%}"
    "{%- else -%}{%- set first = '' -%}{%- set turns = messages -%}{%- endif -%}"
    "{%- for message in turns -%}"
    "{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}"
    "{{ '<start_of_turn>' + role + '\\n' + (first if loop.first else '') "
    "+ message['content'] | trim + '<end_of_turn>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"
)
CHATML_JINJA = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
LLAMA3_JINJA = (
    "{{ bos_token }}"
    "{%- for message in messages -%}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}"
)

TRANSCRIPT_JINJA = (
    "{{ bos_token }}"
    "{%- set names = {'system': 'Note', 'user': 'User', 'assistant': 'Assistant'} -%}"
    "{%- for message in messages -%}"
    "{{ names[message['role']] + ':\\n' + message['content'] | trim "
    "+ (eos_token if message['role'] == 'assistant' else '') + '\\n\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:\\n' }}{%- endif -%}"
)

FORMS: dict[str, ChatForm] = {
    form.name: form
    for form in (
        ChatForm(
            name="gemma",
            write=_gemma,
            open_reply="<start_of_turn>model\n",
            end_of_turn="<end_of_turn>",
            markers=("<start_of_turn>", "<end_of_turn>"),
            jinja=GEMMA_JINJA,
        ),
        ChatForm(
            name="chatml",
            write=_chatml,
            open_reply="<|im_start|>assistant\n",
            end_of_turn="<|im_end|>",
            markers=("<|im_start|>", "<|im_end|>"),
            jinja=CHATML_JINJA,
        ),
        ChatForm(
            name="llama3",
            write=_llama3,
            open_reply="<|start_header_id|>assistant<|end_header_id|>\n\n",
            end_of_turn="<|eot_id|>",
            markers=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
            jinja=LLAMA3_JINJA,
        ),
        ChatForm(
            name="transcript",
            write=_transcript,
            open_reply="Assistant:\n",
            end_of_turn=None,
            markers=(),
            jinja=TRANSCRIPT_JINJA,
            stop_texts=("\n\nUser:",),
        ),
        ChatForm(name="plain", write=_plain, open_reply="", end_of_turn=None, markers=(), jinja=""),
        ChatForm(
            name="helped",
            write=_helped,
            open_reply="Reply:",
            end_of_turn=None,
            markers=(),
            jinja="",
            stop_texts=("\nRequest:", "\nReply:", "\nRule:"),
        ),
    )
}


def chat_form(name: str) -> ChatForm:
    if name not in FORMS:
        raise NotFoundError("chat form", name, known=FORMS)
    return FORMS[name]


def all_markers() -> Sequence[str]:
    """The markers of every family, so that none is recognised inside anybody's text."""
    return sorted({marker for form in FORMS.values() for marker in form.markers})
