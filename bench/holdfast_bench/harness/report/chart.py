"""What a chart says, whatever draws it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

from holdfast_bench.harness.report import units
from holdfast_bench.harness.report.axes import Axis

# A tone on white, and on a dark page.  Told apart by people who see fewer colours, too.
TONES: Final = {
    "blue": ("#2563b8", "#6ea8f5"),
    "orange": ("#c2570c", "#f0944a"),
    "green": ("#12805c", "#44c596"),
    "purple": ("#7a3fa8", "#be93ec"),
    "gold": ("#b8860b", "#e3bb4c"),
    "red": ("#c4262e", "#f4777d"),
    "teal": ("#0b7f93", "#4fc3d6"),
    "pink": ("#b83280", "#f08cc2"),
    "grey": ("#6b7280", "#9aa3b2"),
}
SERIES_TONES: Final = ("blue", "orange", "green", "purple", "gold", "teal", "pink", "red")

Values = Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """One series; None is a gap."""

    name: str
    values: Values
    tone: str
    dashed: bool = False
    layer: bool = False  # lies on the layers before it, and is filled
    sparse: bool = False  # known at some positions only, and joined across the others


@dataclass(frozen=True)
class Band:
    """A stretch of time with a name."""

    name: str
    began: float
    ended: float
    measured: bool


@dataclass(frozen=True)
class Chart:
    """Series over one set of positions."""

    key: str  # its file name, and its address in the page
    title: str
    note: str
    x: Axis
    y: Axis
    positions: Sequence[float]
    lines: Sequence[Line]
    bands: Sequence[Band] = ()
    stepped: bool = False
    show_position: Callable[[float], str] = units.tick
    show_value: Callable[[float | None], str] = units.fixed

    def stacked(self) -> list[tuple[Line, Values, Values]]:
        """Return each layer with its lower and upper edge."""
        layers = [line for line in self.lines if line.layer]
        columns = zip(*([value or 0.0 for value in line.values] for line in layers), strict=True)
        tops = list(zip(*(accumulate(column) for column in columns), strict=True))
        edges: list[Sequence[float]] = [[0.0] * len(self.positions), *tops]
        return [
            (line, edges[i], edges[i + 1]) for i, line in enumerate(layers) if len(edges) > i + 1
        ]

    def plain(self) -> list[Line]:
        """Return the series that are drawn as lines."""
        return [line for line in self.lines if not line.layer]


def stretches(positions: Sequence[float], line: Line) -> list[list[tuple[float, float]]]:
    """Return the points of a series, parted at its gaps."""
    found: list[list[tuple[float, float]]] = [[]]
    for position, value in zip(positions, line.values, strict=True):
        if value is not None:
            found[-1].append((position, value))
        elif found[-1] and not line.sparse:
            found.append([])
    return [stretch for stretch in found if stretch]


def steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return points between which a value stays as it is until the next one."""
    found = list(points[:1])
    for (_, before), (position, value) in pairwise(points):
        found += [(position, before), (position, value)]
    return found
