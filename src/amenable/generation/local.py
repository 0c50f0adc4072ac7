"""The local engine: batches with a KV cache on this machine, several models on one backbone."""

# Shapes: B = rows, T = tokens, H = hidden width, V = vocabulary.

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache

from amenable.chat.encode import Encoder, TokenRow
from amenable.chat.packing import fill, windows
from amenable.chat.trees import Pack, TokenTree
from amenable.generation.engine import Request, TokenPiece, never
from amenable.generation.sampling import next_token
from amenable.models.head import apply_markers
from amenable.models.memory import give_back
from amenable.models.policy import Policy
from amenable.records.conversation import Conversation
from amenable.records.errors import ConfigError, NotFoundError
from amenable.records.sample import ModelRef, Sample, StopReason

ROWS_AT_ONCE = 48
LETTERS_AT_ONCE = 64_000
"""Of prompts, padding included: long ones go few at a time, for attention grows with the square."""
READ_AT_ONCE = 2048
"""Tokens of plain texts in memory at once."""
REPLACEMENT = "\ufffd"  # half a character, still to be completed


@dataclass(frozen=True)
class Speaker:
    """One name of the engine: a policy, the adapter on it, and the chat form it is spoken to in."""

    ref: ModelRef
    policy: Policy
    adapter: str | None
    encoder: Encoder

    @property
    def num_positions(self) -> int:
        """Tokens of prompt and reply together that the model was made for."""
        return self.policy.num_positions


@dataclass
class Row:
    """One reply on its way."""

    position: int
    request: Request
    encoder: Encoder
    ids: list[int] = field(default_factory=list[int])
    text: str = ""
    """Whole characters only, and nothing that a later token could still change."""
    stop_reason: StopReason | None = None
    _context: int = 0
    _told: int = 0  # `text` is of the tokens before this one

    def accept(self, token: int) -> None:
        """Take the next token, and find out whether the reply is over."""
        if token in self.encoder.stop_ids:
            self.stop_reason = "stop"
            return
        self.ids.append(token)
        self._read_on()
        stops = (*self.request.settings.stop, *self.encoder.form.stop_texts)
        cuts = [at for stop in stops if (at := self.text.find(stop)) >= 0]
        if cuts:
            self.text = self.text[: min(cuts)]
            self.stop_reason = "stop"
        elif len(self.ids) >= self.request.settings.max_new_tokens:
            self.stop_reason = "length"

    def _read_on(self) -> None:
        """Add what the new tokens say, once they end a character.

        Decoded anew from the start, bytes that make no character would take back those before them.
        The tokens before the new ones come along, since some tokenizers drop a first space.
        """
        before = self.encoder.decode(self.ids[self._context : self._told])
        after = self.encoder.decode(self.ids[self._context :])
        if len(after) > len(before) and not after.endswith(REPLACEMENT):
            self.text += after[len(before) :]
            self._context, self._told = self._told, len(self.ids)

    def safe_text(self) -> str:
        """What may be shown already: nothing that may begin a stop text."""
        if self.stop_reason is not None:
            return self.text
        stops = (*self.request.settings.stop, *self.encoder.form.stop_texts)
        held = max((_overlap(self.text, stop) for stop in stops), default=0)
        return self.text[: len(self.text) - held]

    def sample(self, ref: ModelRef) -> Sample:
        return Sample(
            prompt=self.request.prompt,
            reply=self.text.strip(),
            model=ref,
            settings=self.request.settings,
            seed=self.request.seed,
            stop_reason=self.stop_reason or "cancelled",
            num_tokens=len(self.ids),
        )


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), 0)


class _Decoding:
    """Replies of one speaker that advance together; finished rows leave the batch."""

    def __init__(self, speaker: Speaker, rows: list[Row], prompts: Sequence[list[int]]) -> None:
        self._speaker = speaker
        self.rows = rows
        longest = max(len(prompt) for prompt in prompts)
        # Left-padded: the newest token must sit at the end for the cache to line up.
        self._tokens_BT = torch.zeros(len(rows), longest, dtype=torch.int64)
        self._mask_BT = torch.zeros(len(rows), longest, dtype=torch.int64)
        for b, prompt in enumerate(prompts):
            self._tokens_BT[b, longest - len(prompt) :] = torch.tensor(prompt)
            self._mask_BT[b, longest - len(prompt) :] = 1
        self._has_padding = bool((self._mask_BT == 0).any())
        self._cache = DynamicCache(config=speaker.policy.network.config)

    def step(self) -> list[Row]:
        """One token for every row; gives the rows that are now over."""
        with torch.inference_mode(), self._speaker.policy.using(self._speaker.adapter):
            logits_BV = self._forward()
        for row, logits_V in zip(self.rows, logits_BV, strict=True):
            request = row.request
            row.accept(next_token(logits_V, request.settings, request.seed, len(row.ids)))
        finished = [row for row in self.rows if row.stop_reason is not None]
        self._tokens_BT = torch.tensor([[row.ids[-1] if row.ids else 0] for row in self.rows])
        self._mask_BT = torch.cat([self._mask_BT, self._mask_BT.new_ones(len(self.rows), 1)], dim=1)
        if finished:
            self._keep([b for b, row in enumerate(self.rows) if row.stop_reason is None])
        return finished

    def _forward(self) -> Tensor:
        device = self._speaker.policy.device
        positions_BT = (self._mask_BT.cumsum(1) - 1).clamp(min=0)
        hidden_BTH = self._speaker.policy.backbone(
            input_ids=self._tokens_BT.to(device),
            attention_mask=self._mask_BT.to(device) if self._has_padding else None,
            position_ids=positions_BT[:, -self._tokens_BT.shape[1] :].to(device),
            past_key_values=self._cache,
            use_cache=True,
        )[0]
        hidden_BH = hidden_BTH[:, -1]
        logits_BV = hidden_BH @ self._speaker.policy.head_weight.T
        ids_M, rows_MH = self._speaker.policy.adapters.active_markers()
        if len(ids_M):
            apply_markers(logits_BV, hidden_BH, ids_M, rows_MH)
        return logits_BV.float().cpu()

    def _keep(self, alive: list[int]) -> None:
        self.rows = [self.rows[b] for b in alive]
        if alive:
            index = torch.tensor(alive)
            self._tokens_BT, self._mask_BT = self._tokens_BT[index], self._mask_BT[index]
            self._cache.batch_select_indices(index.to(self._speaker.policy.device))

    def leave(self) -> None:
        """Everybody goes: the client left."""
        for row in self.rows:
            row.stop_reason = "cancelled"
        self.rows = []


def _num_letters(request: Request) -> int:
    return sum(len(message.text) for message in request.prompt.messages)


def _num_at_once(letters: Sequence[int]) -> int:
    """How many of these prompts, shortest first, make one batch; at least one.

    >>> _num_at_once([100] * 60), _num_at_once([10_000, 20_000, 30_000]), _num_at_once([90_000])
    (48, 2, 1)
    """
    fit = [
        num
        for num, longest in enumerate(letters[:ROWS_AT_ONCE], start=1)
        if num * longest <= LETTERS_AT_ONCE
    ]
    return max(fit, default=1)


class LocalEngine:
    """Steps of different callers take turns, so that two streams advance side by side."""

    def __init__(self, speakers: Mapping[str, Speaker]) -> None:
        self._speakers = dict(speakers)
        self._turn = threading.Lock()

    def replace_speakers(self, speakers: Mapping[str, Speaker]) -> None:
        """Models come and go while others speak; replies under way end as they began."""
        self._speakers = dict(speakers)

    def nobody_speaks(self) -> AbstractContextManager[object]:
        """While it is entered, no step runs: whoever puts an adapter onto a backbone needs that."""
        return self._turn

    def models(self) -> list[ModelRef]:
        return [speaker.ref for speaker in self._speakers.values()]

    def speaker(self, name: str) -> Speaker:
        if name not in self._speakers:
            raise NotFoundError("model", name, known=self._speakers)
        return self._speakers[name]

    def _start(self, speaker: Speaker, requests: Sequence[tuple[int, Request]]) -> _Decoding:
        prompts = [self._prompt_ids(speaker, request) for _, request in requests]
        rows = [Row(position, request, speaker.encoder) for position, request in requests]
        return _Decoding(speaker, rows, prompts)

    def fits(self, request: Request) -> bool:
        """Whether the context has room for the prompt and the longest reply that is asked for."""
        speaker = self.speaker(request.model)
        ids = speaker.encoder.prompt_ids(request.prompt)
        return len(ids) + request.settings.max_new_tokens <= speaker.num_positions

    def _prompt_ids(self, speaker: Speaker, request: Request) -> list[int]:
        ids = speaker.encoder.prompt_ids(request.prompt)
        num_new, room = request.settings.max_new_tokens, speaker.num_positions
        if len(ids) + num_new > room:
            raise ConfigError(
                "the prompt",
                f"{len(ids)} tokens long",
                must=f"leave room for {num_new} more within {room}",
            )
        return ids

    def generate(
        self,
        requests: Sequence[Request],
        on_sample: Callable[[int, Sample], None] | None = None,
    ) -> list[Sample]:
        samples: dict[int, Sample] = {}
        for speaker, group in self._groups(requests):
            decoding = self._start(speaker, group)
            while decoding.rows:
                with self._turn:
                    finished = decoding.step()
                for row in finished:
                    samples[row.position] = row.sample(speaker.ref)
                    if on_sample:
                        on_sample(row.position, samples[row.position])
            give_back()
        return [samples[position] for position in range(len(requests))]

    def _groups(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[Speaker, list[tuple[int, Request]]]]:
        """One speaker at a time; prompts of like length together, so that little is padding."""
        for name in dict.fromkeys(request.model for request in requests):
            speaker = self.speaker(name)
            mine = [(at, request) for at, request in enumerate(requests) if request.model == name]
            mine.sort(key=lambda each: _num_letters(each[1]))
            while mine:
                num = _num_at_once([_num_letters(request) for _, request in mine])
                yield speaker, mine[:num]
                mine = mine[num:]

    def stream(
        self, request: Request, is_cancelled: Callable[[], bool] = never
    ) -> Iterator[str | Sample]:
        speaker = self.speaker(request.model)
        decoding = self._start(speaker, [(0, request)])
        (row,) = decoding.rows
        shown = 0
        while decoding.rows:
            if is_cancelled():
                decoding.leave()
                break
            with self._turn:
                decoding.step()
            text = row.safe_text()
            if len(text) > shown:
                yield text[shown:]
                shown = len(text)
        yield row.sample(speaker.ref)

    def tokens(self, model: str, prompt: Conversation) -> list[TokenPiece]:
        """What the model reads; behind a reply there is no open turn, unless somebody speaks."""
        encoder = self.speaker(model).encoder
        is_replied = prompt.messages[-1].role == "assistant"
        pieces = encoder.form.training(prompt) if is_replied else encoder.form.prompt(prompt)
        return [
            TokenPiece(id_, encoder.surface(id_), piece.is_structure)
            for piece in pieces
            for id_ in encoder.encode_piece(piece)
        ]

    def text_log_probs(
        self, model: str, texts: Sequence[str], *, window: int = READ_AT_ONCE
    ) -> list[tuple[float, int]]:
        """For each plain text: the sum of its tokens' log-probabilities in nats, and their number.

        A text stands alone after the token that begins one; the first token of a model that wants
        none is not scored, since nothing stands before it. One that is longer than `window`, or
        than the model was made for, is read in pieces.
        """
        speaker = self.speaker(model)
        most = min(window, speaker.num_positions)
        rows = [speaker.encoder.text_row(text, has_end=False) for text in texts]
        pieces = [(at, piece) for at, row in enumerate(rows) for piece in windows(row, most)]
        sums, nums = [0.0] * len(texts), [0] * len(texts)
        for group in fill([len(piece.tokens) for _, piece in pieces], budget=READ_AT_ONCE):
            pack = Pack.of([TokenTree.of(pieces[each][1]) for each in group])
            with self._turn, torch.no_grad(), speaker.policy.using(speaker.adapter):
                log_probs_R = speaker.policy.scored(pack).cpu()
            for branch, each in enumerate(group):
                mine_R = log_probs_R[pack.branches_R == branch]
                sums[pieces[each][0]] += float(mine_R.double().sum())
                nums[pieces[each][0]] += len(mine_R)
        return list(zip(sums, nums, strict=True))

    def end_log_prob(self, model: str, prompt: Conversation, reply: str) -> float:
        """Log p(end of turn) right after a reply: how sure the model is that it is over."""
        speaker = self.speaker(model)
        row = speaker.encoder.reply_row(prompt, reply)
        last = max(at for at, is_target in enumerate(row.is_target) if is_target)
        only = TokenRow(row.tokens[: last + 1], [at == last for at in range(last + 1)])
        with self._turn, torch.no_grad(), speaker.policy.using(speaker.adapter):
            return float(speaker.policy.scored(Pack.of([TokenTree.of(only)]))[0])
