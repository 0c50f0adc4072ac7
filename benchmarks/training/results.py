"""The raw results: a file of rows, one a cell, and the table that is made of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.training.measure import Measured, interval
from benchmarks.training.peers import Wanted
from benchmarks.training.rows import ROWS

RESULTS = Path(__file__).parents[1] / "results" / "training.json"
TABLE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGINS, ENDS = "<!-- training: begin -->", "<!-- training: end -->"
MODEL_TITLES = {"gemma-3-270m": "Gemma 3 270M", "smollm2-135m-instruct": "SmolLM2 135M"}
Cell = dict[str, Any]


def key(cell: Cell) -> tuple[str, str, str, str]:
    return cell["row"], cell["model"], cell["peer"], cell["column"]


def read(path: Path = RESULTS) -> list[Cell]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def keep(cell: Cell, path: Path = RESULTS) -> None:
    """A cell that was measured again takes the place of the old one."""
    cells = [each for each in read(path) if key(each) != key(cell)]
    order = {name: at for at, name in enumerate(ROWS)}
    cells = sorted([*cells, cell], key=lambda each: (order[each["row"]], *key(each)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")


def cell_of(wanted: Wanted, measured: Measured, least_seconds: Sequence[float]) -> Cell:
    """`least_seconds`: what arithmetic allows, a pair each that counted."""
    counted = measured.counted
    cell: Cell = {
        "row": wanted.row.name,
        "model": wanted.model,
        "peer": wanted.peer.name,
        "peer_version": wanted.peer.version,
        "column": wanted.column,
        "gate": measured.gate.to_json(),
        "pairs": len(counted),
        "tried": len(measured.pairs),
    }
    if measured.peaks is not None:
        ours, theirs = measured.peaks
        cell |= {"peak_bytes": [ours, theirs], "memory_ratio": round(ours / theirs, 3)}
    if not counted:
        return cell | {"obstacle": _why_nothing(measured)}
    ratios = [pair.ratio for pair in counted]
    low, high = interval(ratios)
    shares = [least / pair.ours for least, pair in zip(least_seconds, counted, strict=True)]
    return cell | {
        "ratio": round(median(ratios), 3),
        "ratio_low": round(low, 3),
        "ratio_high": round(high, 3),
        "ratio_least": round(min(ratios), 3),
        "cpu_ratio": round(median([pair.their_cpu / pair.our_cpu for pair in counted]), 3),
        "seconds_per_step": [
            round(median([pair.ours for pair in counted]), 3),
            round(median([pair.theirs for pair in counted]), 3),
        ],
        "gigaflops_probed": round(median([pair.flops for pair in counted]) / 1e9),
        "ceiling_fraction": round(median(shares), 3),
    }


def _why_nothing(measured: Measured) -> str:
    if not measured.gate.passes:
        return "The two sides do not do the same work: see the gate."
    return f"The machine was never quiet enough in {len(measured.pairs)} tries."


def write_table(path: Path = TABLE) -> None:
    """Between its two marks; the words around it are written by hand."""
    before, rest = path.read_text(encoding="utf-8").split(BEGINS)
    _, after = rest.split(ENDS)
    path.write_text(f"{before}{BEGINS}\n{table(read())}{ENDS}{after}", encoding="utf-8")


def table(cells: Sequence[Cell]) -> str:
    """
    >>> print(table([{"row": "kto", "model": "gemma-3-270m", "peer": "trl", "peer_version": "1",
    ...     "column": "tuned", "obstacle": "No build.", "pairs": 0}]).splitlines()[-1])
    | KTO | Gemma 3 270M | trl 1, tuned | No build. | | | |
    """
    lines = [
        "| row | model | peer | faster by | seconds a step, ours and theirs | memory | ceiling |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell in cells:
        about = (
            f"| {ROWS[cell['row']].title} | {MODEL_TITLES[cell['model']]} "
            f"| {cell['peer']} {cell['peer_version']}, {cell['column']} |"
        )
        if "obstacle" in cell:
            lines.append(f"{about} {cell['obstacle']} | | | |")
            continue
        ours, theirs = cell["seconds_per_step"]
        low, high = cell["ratio_low"], cell["ratio_high"]
        lines.append(
            f"{about} **{cell['ratio']:.2f}x** ({low:.2f} to {high:.2f}, "
            f"{cell['pairs']} pairs){_aim(cell)} | {ours:.2f} and {theirs:.2f} "
            f"| {cell['memory_ratio']:.2f}x | {cell['ceiling_fraction']:.0%} |"
        )
    return "\n".join(lines) + "\n"


def _aim(cell: Cell) -> str:
    """What was asked of a row, beside what it reached."""
    row = ROWS[cell["row"]]
    wanted = dict(zip(row.models, row.must, strict=False)).get(cell["model"])
    if wanted is None or cell["column"] != "tuned" or cell["peer"] != "trl":
        return ""
    return (
        f"; at least {wanted:g}x wanted: {'reached' if cell['ratio_low'] >= wanted else 'missed'}"
    )
