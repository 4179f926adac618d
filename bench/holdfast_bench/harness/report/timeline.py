"""Time as the x axis: a long run is drawn by stretches of it, and what was bad in one stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from holdfast_bench.harness.report import units
from holdfast_bench.harness.report.axes import Axis, Linear
from holdfast_bench.harness.report.chart import Chart, Line
from holdfast_bench.harness.report.run import Run

POINTS_MAX = 400

Point = tuple[float, float | None]
Fold = Callable[[Sequence[float]], float]
Titles = tuple[str, str, str]  # the key of a chart, its title and its note


def mean(values: Sequence[float]) -> float:
    """Fold a stretch to its mean: for rates."""
    return sum(values) / len(values)


def last(values: Sequence[float]) -> float:
    """Fold a stretch to its end: for levels."""
    return values[-1]


@dataclass(frozen=True)
class Timeline:
    """The stretches of a run in which something was seen, by their beginnings."""

    run: Run
    starts: Sequence[float]
    width: float
    axis: Linear

    @classmethod
    def over(cls, run: Run, seconds: Iterable[float]) -> Timeline:
        """Return stretches, no more than POINTS_MAX, that cover these times."""
        seen = sorted(seconds)
        began = min([*(band.began for band in run.bands), *seen[:1]], default=0.0)
        ended = max([run.ended, *seen[-1:]])
        width = max(1.0, float(ceil((ended - began) / POINTS_MAX)))
        starts = sorted({second // width * width for second in seen})
        axis = Linear("seconds of load", began, max(ended, began + 1))
        return cls(run, starts, width, axis)

    def fold(self, points: Iterable[Point], how: Fold) -> list[float | None]:
        """Return one value for each stretch; None where nothing was seen."""
        found: dict[float, list[float]] = {}
        for second, value in points:
            if value is not None:
                found.setdefault(second // self.width * self.width, []).append(value)
        return [how(found[start]) if start in found else None for start in self.starts]

    def says(self, what: str) -> str:
        """Return what a point stands for, where it is more than its second."""
        return f" A point is {what} of {self.width:.0f} s." if self.width > 1 else ""

    def chart(self, titles: Titles, y: Axis, lines: Sequence[Line]) -> Chart:
        """Return a chart over time, with the borders of the phases."""
        positions = [max(start, self.axis.low) for start in self.starts]
        bands = self.run.bands
        return Chart(*titles, self.axis, y, positions, lines, bands, show_position=in_seconds)


def carried(values: Sequence[float | None], stretches_max: int) -> list[float | None]:
    """Return values that stay as they were for so many stretches in which nothing was seen."""
    found: list[float | None] = []
    known, age = None, 0
    for value in values:
        known, age = (value, 0) if value is not None else (known, age + 1)
        found.append(known if age <= stretches_max else None)
    return found


def in_seconds(position: float) -> str:
    """Return a time since the beginning."""
    return f"{units.tick(round(position, 1))} s"
