"""Real texts cut into prompts and replies of a row's lengths, as token ids that both sides read."""

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.training.rows import Lengths, Row

NUM_STEPS = 8
"""After so many steps both sides begin anew with the first."""
SEED = 11


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of a prompt, and of its replies from best to worst."""

    prompt: list[int]
    replies: list[list[int]]
    is_good: bool
    """For methods that take a reply by itself: half of them are."""

    @property
    def num_tokens(self) -> int:
        """With the prompt laid out once."""
        return len(self.prompt) + self.num_scored

    @property
    def num_scored(self) -> int:
        return sum(len(reply) for reply in self.replies)


@dataclass(frozen=True, slots=True)
class Workload:
    examples: list[Example]
    per_step: int

    @classmethod
    def of(
        cls, row: Row, tokenizer: Tokenizer, begin: Sequence[int], texts: Sequence[str]
    ) -> "Workload":
        """`begin`: ids that every sequence of this model begins with."""
        draw = random.Random(SEED)  # noqa: S311
        stream = _stream(tokenizer, texts)
        examples: list[Example] = []
        for at in range(NUM_STEPS * row.prompts_per_step):
            prompt = [*begin, *_take(stream, draw, row.prompt)] if row.prompt else list(begin)
            replies = [_take(stream, draw, row.reply) for _ in range(row.num_replies)]
            if not prompt:  # something has to stand before the first scored token
                prompt, replies[0] = replies[0][:1], replies[0][1:]
            examples.append(Example(prompt, replies, is_good=at % 2 == 0))
        return cls(examples, row.prompts_per_step)

    def steps(self) -> list[list[Example]]:
        return [
            self.examples[start : start + self.per_step]
            for start in range(0, len(self.examples), self.per_step)
        ]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Workload":
        """Also in a peer's environment: this needs the standard library alone."""
        body = json.loads(path.read_text(encoding="utf-8"))
        return cls([Example(**each) for each in body["examples"]], body["per_step"])


def _stream(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[int]:
    """The texts' tokens, one after the other, and again from the first."""
    while True:
        for text in texts:
            yield from tokenizer.encode(text, add_special_tokens=False).ids


def _take(stream: Iterator[int], draw: random.Random, lengths: Lengths) -> list[int]:
    wanted = round(draw.lognormvariate(math.log(lengths.median), lengths.spread))
    return [next(stream) for _ in range(max(lengths.least, min(lengths.most, wanted)))]
