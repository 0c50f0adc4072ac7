"""Where things stand in the drawn pictures: the loop of Home, the family tree, interval bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import asin, cos, degrees, hypot, pi, sin
from typing import Literal

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """A place of the loop: a circle, and where its words stand."""

    x: float
    y: float
    radius: float
    label_x: float
    label_y: float
    anchor: Anchor = "middle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    path: str
    tip: Point
    angle: float  # degrees, clockwise from pointing right


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopPicture:
    name: str
    width: int
    height: int
    stations: Mapping[str, Station]
    arrows: Mapping[str, Arrow]
    proof: Point


GAP = 7.0  # between an arrow and the circle it leaves or reaches


def _line(start: Station, end: Station, start_reach: float, end_reach: float) -> Arrow:
    length = hypot(end.x - start.x, end.y - start.y)
    along = Point((end.x - start.x) / length, (end.y - start.y) / length)
    first = Point(start.x + along.x * start_reach, start.y + along.y * start_reach)
    tip = Point(end.x - along.x * end_reach, end.y - along.y * end_reach)
    angle = 0.0 if abs(along.x) > abs(along.y) else 90.0
    return Arrow(path=f"M{first.x:.1f} {first.y:.1f}L{tip.x:.1f} {tip.y:.1f}", tip=tip, angle=angle)


def _arc(centre: Point, radius: float, quarter: int, leaves: float, reaches: float) -> Arrow:
    """A quarter of the ring, clockwise on the screen, shortened by the circles at its ends."""
    begin = quarter * pi / 2 + 2 * asin((leaves + GAP) / (2 * radius))
    end = (quarter + 1) * pi / 2 - 2 * asin((reaches + GAP) / (2 * radius))
    first = Point(centre.x + radius * cos(begin), centre.y + radius * sin(begin))
    tip = Point(centre.x + radius * cos(end), centre.y + radius * sin(end))
    path = f"M{first.x:.1f} {first.y:.1f}A{radius} {radius} 0 0 1 {tip.x:.1f} {tip.y:.1f}"
    return Arrow(path=path, tip=tip, angle=degrees(end) + 90)


def _ring(
    centre: Point, radius: float, first_quarter: int, stations: Mapping[str, Station]
) -> dict[str, Arrow]:
    order = ("instruct", "people", "votes", "improved")
    names = ("sample", "judge", "improve", "again")
    return {
        name: _arc(
            centre,
            radius,
            first_quarter + position,
            stations[order[position]].radius,
            stations[order[(position + 1) % 4]].radius,
        )
        for position, name in enumerate(names)
    }


def _wide() -> LoopPicture:
    stations = {
        "base": Station(x=92, y=206, radius=54, label_x=92, label_y=292),
        "demonstrations": Station(x=350, y=206, radius=40, label_x=350, label_y=276),
        "instruct": Station(x=640, y=206, radius=54, label_x=596, label_y=284, anchor="end"),
        "people": Station(x=792, y=54, radius=36, label_x=846, label_y=34, anchor="start"),
        "votes": Station(x=944, y=206, radius=36, label_x=992, label_y=202, anchor="start"),
        "improved": Station(x=792, y=358, radius=44, label_x=852, label_y=386, anchor="start"),
    }
    centre = Point(792, 206)
    arrows = {
        "feed": _line(stations["base"], stations["demonstrations"], 61, 46),
        "finetune": _line(stations["demonstrations"], stations["instruct"], 46, 61),
        **_ring(centre, 152, 2, stations),
    }
    return LoopPicture(
        name="wide", width=1140, height=412, stations=stations, arrows=arrows, proof=centre
    )


def _tall() -> LoopPicture:
    stations = {
        "base": Station(x=66, y=62, radius=46, label_x=66, label_y=130),
        "demonstrations": Station(x=286, y=62, radius=34, label_x=286, label_y=130),
        "instruct": Station(x=180, y=244, radius=42, label_x=130, label_y=214, anchor="end"),
        "people": Station(x=302, y=366, radius=32, label_x=306, label_y=420),
        "votes": Station(x=180, y=488, radius=32, label_x=180, label_y=542),
        "improved": Station(x=58, y=366, radius=36, label_x=54, label_y=424),
    }
    centre = Point(180, 366)
    turn = Arrow(path="M286 168C286 206 258 236 230 242", tip=Point(230, 242), angle=168)
    arrows = {
        "feed": _line(stations["base"], stations["demonstrations"], 53, 41),
        "finetune": turn,
        **_ring(centre, 122, 3, stations),
    }
    return LoopPicture(
        name="tall", width=360, height=572, stations=stations, arrows=arrows, proof=centre
    )


LOOPS = (_wide(), _tall())


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """An interval on a scale of 0 to 100, ready to be drawn."""

    value: float
    low: float
    high: float
    zero: float | None  # where no difference stands, if the scale shows it


def bar(value: float, low: float, high: float, *, start: float, end: float) -> Bar:
    """Place an interval on a scale.

    >>> bar(0.5, 0.25, 0.75, start=0, end=1)
    Bar(value=50.0, low=25.0, high=75.0, zero=None)
    """

    def place(number: float) -> float:
        return round(min(1.0, max(0.0, (number - start) / ((end - start) or 1))) * 100, 2)

    zero = place(0.0) if start < 0 < end else None
    return Bar(value=place(value), low=place(low), high=place(high), zero=zero)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One model of the family tree."""

    name: str
    x: float
    y: float
    parent: Point | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    width: int
    height: int
    leaves: Sequence[Leaf]


COLUMN, ROW = 250, 92


def family_tree(parents: Mapping[str, str | None]) -> Tree:
    """Generations from left to right, each family on rows of its own; an only child stays level.

    >>> [(leaf.name, leaf.x, leaf.y) for leaf in family_tree({"base": None, "v1": "base"}).leaves]
    [('base', 40, 46), ('v1', 290, 46)]
    """
    children: dict[str | None, list[str]] = {}
    for name, parent in parents.items():
        children.setdefault(parent if parent in parents else None, []).append(name)
    leaves: list[Leaf] = []
    row = 0

    def grow(name: str, depth: int, parent: Point | None) -> None:
        nonlocal row
        place = Point(40 + depth * COLUMN, 46 + row * ROW)
        leaves.append(Leaf(name=name, x=place.x, y=place.y, parent=parent))
        for position, child in enumerate(children.get(name, [])):
            row += position > 0
            grow(child, depth + 1, place)

    for root in children.get(None, []):
        grow(root, 0, None)
        row += 1
    width = max((int(leaf.x) for leaf in leaves), default=0) + COLUMN
    return Tree(width=width, height=max(row, 1) * ROW, leaves=leaves)
