"""Numbers as people read them: values in their unit, signed differences, intervals, chance."""

from amenable.records.measurement import Difference

UNIT_WORDS = {"share": "points", "words": "words", "bits per byte": "bits per byte"}


def value_text(value: float, unit: str) -> str:
    """A value in its unit.

    >>> value_text(0.4605, "share"), value_text(23.456, "perplexity"), value_text(0.004, "share")
    ('46 %', '23.5', '0.4 %')
    """
    if unit == "share":
        return f"{_short(100 * value)} %"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def signed(value: float, unit: str) -> str:
    """A difference, with its sign; shares in points.

    >>> signed(0.253, "share"), signed(-0.034, "perplexity"), signed(-58.52, "words")
    ('+25', '−0.034', '−58.5')
    """
    amount = abs(value) * 100 if unit == "share" else abs(value)
    text = _short(amount) if unit == "share" else _two_digits(amount)
    if text == "0":
        return text
    return ("−" if value < 0 else "+") + text


def interval_text(low: float, high: float, unit: str) -> str:
    return f"{signed(low, unit)} to {signed(high, unit)}"


def p_text(p: float) -> str:
    """
    >>> p_text(0.0003), p_text(0.0412), p_text(1)
    ('p < 0.001', 'p = 0.04', 'p = 1')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p >= 0.095 else f"p = {p:.1g}"


def verdict(difference: Difference, better: str) -> str:
    """What a difference says, and no more: better, worse, more, less, or perhaps chance."""
    if difference.could_be_chance:
        return "could be chance"
    is_more = difference.value > 0
    if better == "neither":
        return "more" if is_more else "less"
    return "better" if is_more == (better == "higher") else "worse"


def _two_digits(amount: float) -> str:
    if amount == 0:
        return "0"
    return f"{amount:.1f}" if amount >= 10 else f"{amount:#.2g}"


def _short(percent: float) -> str:
    """
    >>> _short(0.42), _short(3.0), _short(99.6)
    ('0.4', '3', '99.6')
    """
    if abs(percent) < 1 or 99 < abs(percent) < 100:
        return f"{percent:.1f}".removesuffix(".0")
    return f"{percent:.0f}"
