"""Which differences a row reports: against the better base, against the parent, against a guest."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from amenable.evaluation.model_spec import ModelSpec, anchors, newest_policy
from amenable.records.measurement import Better


class Contrast(NamedTuple):
    """`model` minus `against`."""

    model: str
    against: str


def contrasts(
    specs: Sequence[ModelSpec], values: Mapping[str, float], better: Better
) -> list[Contrast]:
    """The differences of one row, among the models that have a value in it.

    Each model against the better form of the base, so that an unhelped base cannot make it look
    good; each version against its parent; the newest version against ready-made guests.
    """
    present = [spec for spec in specs if spec.name in values]
    bases = [name for name in anchors(specs) if name in values]
    anchor = better_of(bases, values, better) if bases else None
    wanted: list[Contrast] = []
    for spec in present:
        if anchor is not None and spec.name not in bases:
            wanted.append(Contrast(spec.name, anchor))
        if spec.parent is not None and spec.parent in values and spec.parent not in bases:
            wanted.append(Contrast(spec.name, spec.parent))
    newest = newest_policy(present)
    if newest is not None:
        guests = [spec.name for spec in present if spec.kind == "instruct"]
        wanted += [Contrast(newest.name, guest) for guest in guests if guest not in bases]
    return list(dict.fromkeys(wanted))


def better_of(names: Sequence[str], values: Mapping[str, float], better: Better) -> str:
    """The first, where neither is better or where they are equal.

    >>> better_of(["plain", "helped"], {"plain": 0.1, "helped": 0.3}, "higher")
    'helped'
    """
    if better == "neither":
        return names[0]
    sign = 1 if better == "higher" else -1
    return max(names, key=lambda name: sign * values[name])
