"""How well models predict plain text: perplexity, and bits per byte across tokenizers.

Sums go over all texts before they are divided, so a long text weighs more than a short one;
uncertainty comes from drawing whole texts anew, since words of one text are not independent.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from amenable.evaluation.contrasts import contrasts
from amenable.evaluation.metrics import METRICS
from amenable.evaluation.model_spec import ModelSpec
from amenable.evaluation.paired import adjusted
from amenable.records.errors import DataError
from amenable.records.measurement import Difference, Measured, Row
from amenable.records.seeds import seed_for
from amenable.stats.intervals import NUM_DRAWS, Floats, percentile_ends
from amenable.stats.significance import two_sided_p

# Shapes: D = draws of the bootstrap, K = texts.

FEW_TEXTS = 2
LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLogProb:
    """What one model makes of one text; natural logarithm, summed over its tokens."""

    key: str
    sum_log_prob: float
    num_tokens: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class _Readings:
    nll_K: Floats
    tokens_K: Floats
    bytes_K: Floats

    def perplexity(self, times: Floats) -> Floats:
        """`times` says how often each text counts, one row a draw."""
        return np.exp((times @ self.nll_K) / (times @ self.tokens_K))

    def bits_per_byte(self, times: Floats) -> Floats:
        return (times @ self.nll_K) / (times @ self.bytes_K) / math.log(2)


Statistic = Callable[[_Readings, Floats], Floats]


def perplexity(texts: Sequence[TextLogProb]) -> float:
    """exp(total negative log-likelihood / total tokens).

    >>> half = TextLogProb(key="a", sum_log_prob=-3 * math.log(2), num_tokens=3, num_bytes=9)
    >>> round(perplexity([half]), 9)
    2.0
    """
    return math.exp(-sum(t.sum_log_prob for t in texts) / sum(t.num_tokens for t in texts))


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsRead:
    """How well one model predicts some texts; of a single text nothing is known of the spread."""

    num_texts: int
    num_tokens: int
    num_bytes: int
    perplexity: float
    bits_per_byte: float
    perplexity_ends: tuple[float, float] | None
    """Of the 95 % interval; as are those below."""
    bits_per_byte_ends: tuple[float, float] | None


def texts_read(texts: Sequence[TextLogProb], seed: int) -> TextsRead:
    """Two models that read the same texts with one seed are measured on the same draws."""
    (readings,) = _readings({"": texts}).values()
    once_1K, times_DK = np.ones((1, len(texts))), _times(len(texts), seed)

    def ends(statistic: Statistic) -> tuple[float, float] | None:
        if len(texts) < FEW_TEXTS:
            return None
        return percentile_ends(statistic(readings, times_DK), LEVEL)

    return TextsRead(
        num_texts=len(texts),
        num_tokens=int(readings.tokens_K.sum()),
        num_bytes=int(readings.bytes_K.sum()),
        perplexity=float(_Readings.perplexity(readings, once_1K)[0]),
        bits_per_byte=float(_Readings.bits_per_byte(readings, once_1K)[0]),
        perplexity_ends=ends(_Readings.perplexity),
        bits_per_byte_ends=ends(_Readings.bits_per_byte),
    )


def perplexity_rows(
    texts: Mapping[str, Sequence[TextLogProb]], specs: Sequence[ModelSpec], seed: int
) -> list[Row]:
    """Perplexity, for models that cut the texts into tokens as the first does, and bits per byte.

    None with fewer than two texts, which tell nothing about spread.
    """
    readings = _readings(texts)
    first = next(iter(readings.values()), None)
    if first is None or len(first.nll_K) < FEW_TEXTS:
        return []
    same = {
        name: each
        for name, each in readings.items()
        if np.array_equal(each.tokens_K, first.tokens_K)
    }
    others = [name for name in readings if name not in same]
    note = f"{len(first.nll_K)} texts, {int(first.tokens_K.sum()):,} tokens."
    if others:
        note += f" Other tokens, so not comparable here (see bits per byte): {', '.join(others)}."
    perplexities = _row("perplexity", same, _Readings.perplexity, specs, seed)
    bits = _row("bits_per_byte", readings, _Readings.bits_per_byte, specs, seed)
    return [replace(perplexities, note=note), bits]


def _readings(texts: Mapping[str, Sequence[TextLogProb]]) -> dict[str, _Readings]:
    keys = {tuple(sorted(text.key for text in read)) for read in texts.values()}
    if len(keys) > 1:
        raise DataError("The models did not read the same texts, so they cannot be compared.")
    in_order = {name: sorted(read, key=lambda text: text.key) for name, read in texts.items()}
    return {
        name: _Readings(
            np.array([-text.sum_log_prob for text in read]),
            np.array([text.num_tokens for text in read], dtype=np.float64),
            np.array([text.num_bytes for text in read], dtype=np.float64),
        )
        for name, read in in_order.items()
    }


def _row(
    metric: str,
    readings: Mapping[str, _Readings],
    statistic: Statistic,
    specs: Sequence[ModelSpec],
    seed: int,
) -> Row:
    about = METRICS[metric]
    num_texts = len(next(iter(readings.values())).nll_K)
    times_DK = _times(num_texts, seed)
    values = {
        name: float(statistic(each, np.ones((1, num_texts)))[0]) for name, each in readings.items()
    }
    drawn = {name: statistic(each, times_DK) for name, each in readings.items()}
    single = {name: statistic(each, np.eye(num_texts)) for name, each in readings.items()}
    differences: list[Difference] = []
    for model, against in contrasts(specs, values, about.better):
        gap_D = drawn[model] - drawn[against]
        low, high = percentile_ends(gap_D, LEVEL)
        differences.append(
            Difference(
                model=model,
                against=against,
                value=values[model] - values[against],
                low=low,
                high=high,
                p=two_sided_p(gap_D, num_differing=_num_differing(single[model], single[against])),
            )
        )
    return Row(
        aspect=about.aspect,
        metric=metric,
        unit=about.unit,
        n=num_texts,
        values={name: _measured(values[name], drawn[name]) for name in readings},
        differences=adjusted(differences),
        better=about.better,
        title=about.title,
        about=about.about,
    )


def _times(num_texts: int, seed: int) -> Floats:
    """How often each text is drawn; the same draws for every model, so that gaps stay paired."""
    generator = np.random.default_rng(seed_for(seed, "texts"))
    even = np.full(num_texts, 1 / num_texts)
    return generator.multinomial(num_texts, even, size=NUM_DRAWS).astype(np.float64)


def _measured(value: float, drawn_D: Floats) -> Measured:
    low, high = percentile_ends(drawn_D, LEVEL)
    return Measured(value=value, low=low, high=high)


def _num_differing(one_K: Floats, other_K: Floats) -> int:
    """Texts that two models read differently."""
    return int((one_K != other_K).sum())
