"""Pieces to token ids and back: structure with control tokens on, content with them off."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

from tokenizers import Tokenizer

from amenable.chat.template import BEGIN, END, ChatForm, Piece, all_markers
from amenable.records.conversation import Conversation
from amenable.records.errors import ModelError

# Some tokenizers keep HTML tags and runs of white space as tokens of their own; these are text.
HTML_NAMES = (
    "a|b|i|s|u|em|h[1-6]|li|td|th|tr|ul|bbox|body|caption|code|div|footer|html|iframe|img|span|"
    "strong|sub|sup|table|tbody|tfoot|thead|blockquote"
)
TEXT_TOKEN = re.compile(rf"[\s▁]*|</?(?:{HTML_NAMES})>")


class TokenRow(NamedTuple):
    """One sequence for training; `is_target[i]` says whether the loss counts at token i.

    Token i is predicted from the tokens before it, so a target never stands at position 0.
    """

    tokens: list[int]
    is_target: list[bool]


@dataclass(frozen=True)
class Encoder:
    """A tokenizer and the chat form it is used with: together, always."""

    tokenizer: Tokenizer
    form: ChatForm
    begin: int | None
    """The token every text starts with, if the model wants one."""
    end_of_text: int | None

    @classmethod
    def load(
        cls,
        folder: Path,
        form: ChatForm,
        *,
        bos: int | None,
        end_of_text: int | None,
        always_begins: bool = False,
    ) -> "Encoder":
        """`bos` begins every text if the tokenizer's own file puts it there."""
        path = folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the native reader raises bare Exception
            raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from error
        begins = always_begins or tokenizer.encode("").ids[:1] == [bos]
        return cls(tokenizer, form, bos if begins else None, end_of_text)

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Ids that mean structure and may never come from content."""
        added = cast("dict[int, Any]", self.tokenizer.get_added_tokens_decoder())
        markers = set(all_markers())
        return frozenset(
            id_
            for id_, token in added.items()
            if token.content in markers
            or (token.special and TEXT_TOKEN.fullmatch(token.content) is None)
        )

    @cached_property
    def _control_texts(self) -> re.Pattern[str]:
        texts = sorted((self._text_of(id_) for id_ in self.control_ids), key=len, reverse=True)
        return re.compile("|".join(re.escape(text) for text in texts if text) or r"(?!)")

    def _text_of(self, id_: int) -> str:
        return self.tokenizer.id_to_token(id_) or ""

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end a reply: the form's end of turn, and end of text."""
        end = self.form.end_of_turn
        ids = [None if end is None else self.tokenizer.token_to_id(end), self.end_of_text]
        return tuple(dict.fromkeys(id_ for id_ in ids if id_ is not None))

    @cached_property
    def marker_ids(self) -> tuple[int, ...]:
        ids = [self.tokenizer.token_to_id(marker) for marker in self.form.markers]
        if None in ids:
            raise ModelError(
                f"The tokenizer has no token for {self.form.markers[ids.index(None)]!r}, so the "
                f"chat form {self.form.name!r} does not fit this model."
            )
        return tuple(cast("list[int]", ids))

    def encode_piece(self, piece: Piece) -> list[int]:
        if not piece.is_structure:
            return self.encode_text(piece.text)
        if piece.text == BEGIN:
            return [] if self.begin is None else [self.begin]
        if piece.text == END:
            return [] if self.end_of_text is None else [self.end_of_text]
        return self._encode(piece.text)

    def encode_text(self, text: str) -> list[int]:
        """Content: a control token's text is cut after its first letter, so it stays text."""
        ids: list[int] = []
        start = 0
        for match in self._control_texts.finditer(text):
            cut = match.start() + 1
            ids += self._encode(text[start:cut])
            start = cut
        ids += self._encode(text[start:])
        if not self.control_ids.isdisjoint(ids):
            # Only a tokenizer whose normaliser joins letters across the cut can get here.
            raise ModelError(f"This text cannot be told from control tokens: {text[:80]!r}")
        return ids

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids if text else []

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        return [id_ for piece in self.form.prompt(conversation) for id_ in self.encode_piece(piece)]

    def training_row(self, conversation: Conversation) -> TokenRow:
        """A whole conversation; the loss counts on every reply."""
        return self._row(self.form.training(conversation), first=0)

    def reply_row(self, prompt: Conversation, reply: str, *, has_end: bool = True) -> TokenRow:
        """A prompt and a reply; the loss counts on the reply alone.

        A reply that was cut off has no end: its marker would teach to stop in mid-sentence.
        """
        pieces = self.form.training(prompt.with_reply(reply))
        first = _last_reply_start(pieces)
        return self._row(pieces if has_end else pieces[: first + 1], first)

    def text_row(self, text: str, *, has_end: bool = True) -> TokenRow:
        """A plain text, from the token that begins one to the end of text; the first is given."""
        begin = [] if self.begin is None else [self.begin]
        end = [] if self.end_of_text is None or not has_end else [self.end_of_text]
        tokens = [*begin, *self.encode_text(text), *end]
        return TokenRow(tokens, [at > 0 for at in range(len(tokens))])

    def _row(self, pieces: Sequence[Piece], first: int) -> TokenRow:
        """Targets count from the piece `first` on."""
        tokens: list[int] = []
        is_target: list[bool] = []
        for position, piece in enumerate(pieces):
            ids = self.encode_piece(piece)
            tokens += ids
            is_target += [piece.is_target and position >= first] * len(ids)
        return TokenRow(tokens, is_target)

    def decode(self, ids: Sequence[int]) -> str:
        """Text without control tokens; half a character at the end is kept back as U+FFFD."""
        plain = [id_ for id_ in ids if id_ not in self.control_ids]
        return self.tokenizer.decode(plain, skip_special_tokens=False)

    def surface(self, id_: int) -> str:
        """One token as people may read it."""
        if id_ in self.control_ids:
            return self._text_of(id_)
        return self.tokenizer.decode([id_], skip_special_tokens=False)


def _last_reply_start(pieces: Sequence[Piece]) -> int:
    """Where the last reply's text stands; its end marker follows it."""
    return max(
        position
        for position, piece in enumerate(pieces)
        if piece.is_target and not piece.is_structure
    )
