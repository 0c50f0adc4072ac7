"""Pictures as SVG text to stand inside a page: the page's colours, readable without colour.

The base is amber and hollow, what was trained here is teal and filled, others are ink diamonds.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple
from warnings import catch_warnings, simplefilter

from markupsafe import Markup

from amenable.records.measurement import Measured, Row
from amenable.reports.numbers import value_text
from amenable.reports.result import CurvePoint, Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE, SHEET = "#1c1a16", "#5c564c", "#e5ddcf", "#ffffff"
AMBER, TEAL = "#9a5b00", "#006d6a"
# The page says what these are in the dark and on paper.
VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--ink-soft)",
    LINE: "var(--hairline)",
    SHEET: "var(--sheet)",
    AMBER: "var(--base)",
    TEAL: "var(--instruct)",
}
SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: searchable, spoken, in the page's own face
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.size": 10.0,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": INK,
    "text.color": INK,
    "axes.linewidth": 0.8,
}
ROW_INCHES = 0.36
LONGEST_NAME = 36
_lock = Lock()  # matplotlib's settings are one for the whole process


class Look(NamedTuple):
    marker: str
    colour: str
    is_filled: bool


LOOKS: Mapping[Kind, Look] = {
    "base": Look("o", AMBER, is_filled=False),
    "helped": Look("s", AMBER, is_filled=False),
    "policy": Look("o", TEAL, is_filled=True),
    "instruct": Look("D", INK, is_filled=True),
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One metric of the opening picture."""

    title: str
    row: Row


def opening(panels: Sequence[Panel], kinds: Mapping[str, Kind]) -> Markup:
    """The models as lines, one panel a metric: mark, 95 % interval as a bar, value at its end."""
    names = [name for name in kinds if any(name in panel.row.values for panel in panels)]
    height = 0.85 + ROW_INCHES * len(names)

    def draw(figure: "Figure") -> None:
        from matplotlib.transforms import blended_transform_factory  # noqa: PLC0415

        label_share = min(0.34, 0.0088 * max(map(len, names)) + 0.02)
        width = (1 - label_share) / len(panels)
        for at, panel in enumerate(panels):
            left = label_share + at * width
            axes = figure.add_axes((left, 0.3 / height, width - 0.085, 1 - 0.85 / height))
            _panel(axes, panel, names, kinds)
            if at == 0:
                across = blended_transform_factory(figure.transFigure, axes.transData)
                for place, name in enumerate(names):
                    axes.text(0, -place, shortened(name), va="center", transform=across)

    says = "; ".join(_in_words(panel) for panel in panels)
    return _svg(draw, (10.4, height), "opening", says)


def shortened(name: str) -> str:
    """A long name without its middle: versions of one family differ at the end.

    >>> shortened("a-very-long-name-of-a-model-by-somebody-instruct-2")
    'a-very-long-name-…mebody-instruct-2'
    """
    return name if len(name) <= LONGEST_NAME else f"{name[:17]}…{name[-17:]}"


def families(rows: Sequence[Row], base: str, model: str, kinds: tuple[Kind, Kind]) -> Markup:
    """One line a family, best first: what it is measured against above, the model below."""
    ordered = sorted(rows, key=lambda row: row.values[model].value)
    height = 0.5 + 0.3 * len(ordered)

    def draw(figure: "Figure") -> None:
        axes = figure.add_axes((0.2, 0.4 / height, 0.6, 1 - 0.45 / height))
        for place, row in enumerate(ordered):
            before, after = row.values[base], row.values[model]
            _mark(axes, before, place + 0.14, LOOKS[kinds[0]], size=6)
            _mark(axes, after, place - 0.14, LOOKS[kinds[1]], size=6)
            text = f"{value_text(before.value, row.unit)}  →  {value_text(after.value, row.unit)}"
            axes.text(1.04, place, text, va="center", transform=axes.get_yaxis_transform())
        labels = [f"{row.metric.partition('/')[2].replace('_', ' ')}  ({row.n})" for row in ordered]
        axes.set_yticks(range(len(ordered)), labels)
        axes.set_ylim(-0.6, len(ordered) - 0.4)
        _share_axis(axes)
        axes.grid(axis="y", color=LINE, linewidth=0.5)
        _bare(axes)

    said = [f"{row.metric.partition('/')[2]} {_both(row, base, model)}" for row in ordered[::-1]]
    return _svg(draw, (10.4, height), "families", f"{base} and {model}: " + "; ".join(said))


def curve(points: Sequence[CurvePoint], name: str, label: str) -> Markup:
    """A training curve; the last value stands at the end of its line."""
    steps = [point.step for point in points]
    values = [point.value for point in points]

    def draw(figure: "Figure") -> None:
        axes = figure.add_axes((0.07, 0.17, 0.82, 0.76))
        axes.plot(steps, values, color=TEAL, linewidth=1.6, solid_capstyle="round")
        axes.plot(steps[-1:], values[-1:], "o", color=TEAL, markersize=5)
        axes.annotate(
            f"{values[-1]:.3g}",
            (steps[-1], values[-1]),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            weight="bold",
            annotation_clip=False,
        )
        axes.set_xlabel("step")
        axes.set_title(label, loc="left", fontsize=10, color=SOFT)
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        _bare(axes)

    says = f"{label}: {values[0]:.3g} at step {steps[0]}, {values[-1]:.3g} at step {steps[-1]}"
    return _svg(draw, (10.4, 2.5), name, says)


def _panel(axes: "Axes", panel: Panel, names: Sequence[str], kinds: Mapping[str, Kind]) -> None:
    row = panel.row
    for place, name in enumerate(names):
        if name not in row.values:
            said = "same weights as above" if kinds[name] == "helped" else "not comparable"
            axes.text(0.02, -place, said, va="center", color=SOFT, fontsize=9,
                      transform=axes.get_yaxis_transform())  # fmt: skip
            continue
        found = row.values[name]
        _mark(axes, found, -place, LOOKS[kinds[name]], size=8)
        axes.annotate(
            value_text(found.value, row.unit),
            (found.high, -place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            weight="bold" if kinds[name] == "policy" else "normal",
            annotation_clip=False,
        )
    axes.set_ylim(-len(names) + 0.4, 0.6)
    axes.set_yticks([])
    if row.unit == "share":
        _share_axis(axes)
    else:
        _padded_axis(axes, row)
    axes.set_title(panel.title, loc="left", fontsize=11, weight="bold", pad=22)
    below = {"higher": "more is better", "lower": "less is better", "neither": ""}[row.better]
    axes.annotate(below, (0, 1), xytext=(0, 9), xycoords="axes fraction",
                  textcoords="offset points", fontsize=9, color=SOFT)  # fmt: skip
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    _bare(axes)


def _mark(axes: "Axes", found: Measured, place: float, look: Look, size: float) -> None:
    axes.plot([found.low, found.high], [place, place], color=look.colour, linewidth=2.4,
              alpha=0.45, solid_capstyle="butt")  # fmt: skip
    axes.plot([found.value], [place], look.marker, color=look.colour, markersize=size,
              markerfacecolor=look.colour if look.is_filled else SHEET,
              markeredgewidth=1.8, clip_on=False, zorder=3)  # fmt: skip


def _share_axis(axes: "Axes") -> None:
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])


def _padded_axis(axes: "Axes", row: Row) -> None:
    lowest = min(found.low for found in row.values.values())
    highest = max(found.high for found in row.values.values())
    room = (highest - lowest) * 0.12 or abs(highest) * 0.05 or 1.0
    axes.set_xlim(lowest - room, highest + room)
    axes.locator_params(axis="x", nbins=4)


def _bare(axes: "Axes") -> None:
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _in_words(panel: Panel) -> str:
    values = panel.row.values.items()
    said = ", ".join(f"{name} {value_text(found.value, panel.row.unit)}" for name, found in values)
    return f"{panel.title}: {said}"


def _both(row: Row, base: str, model: str) -> str:
    before, after = (value_text(row.values[name].value, row.unit) for name in (base, model))
    return f"{before} to {after}"


def _svg(
    draw: Callable[["Figure"], None], inches: tuple[float, float], name: str, says: str
) -> Markup:
    # Half a second of import, which no page or command that draws nothing should wait for.
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    written = StringIO()
    with _lock, rc_context(dict[Any, Any](SETTINGS | {"svg.hashsalt": name})), catch_warnings():
        # Only the width of a letter is asked here; the reader's own face draws it.
        simplefilter("ignore")
        figure = Figure(figsize=inches)
        draw(figure)
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    return _for_a_page(written.getvalue(), name, says)


def _for_a_page(svg: str, name: str, says: str) -> Markup:
    """Without addresses, fixed size and colours; ids that no other picture of the page has."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    opening_tag, rest = body.split(">", 1)
    found = re.search(r'viewBox="([^"]+)"', opening_tag)
    assert found is not None
    rest = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', rest)
    rest = re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{name}-\1"', rest)
    rest = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", rest)
    for colour, variable in VARIABLES.items():
        rest = rest.replace(colour, variable)
    tag = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(found.group(1), says)
    # Safe: matplotlib wrote it and escapes every text in it.
    return tag + Markup(rest)  # noqa: S704
