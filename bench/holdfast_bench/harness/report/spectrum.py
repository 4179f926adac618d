"""Latency over percentile: an .hgrm file, or the few percentiles that result.json keeps."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path

NAMED = {
    "p50": 50.0,
    "p75": 75.0,
    "p90": 90.0,
    "p95": 95.0,
    "p99": 99.0,
    "p99_9": 99.9,
    "p99_99": 99.99,
}
UNITS_NS = (1, 1_000, 1_000_000, 1_000_000_000)


@dataclass(frozen=True)
class Spectrum:
    """Values in ns at rising percentiles, 0 to 100; a coarse one knows only the named ones."""

    percentiles: Sequence[float]
    values_ns: Sequence[float]
    count: int
    is_coarse: bool = False

    def at(self, percentile: float) -> float | None:
        """Return the latency that so many percent of the calls did not exceed, if that is known."""
        index = bisect_left(self.percentiles, percentile - 1e-9)
        if self.is_coarse:
            return self._known(index, percentile)
        return self.values_ns[min(index, len(self.values_ns) - 1)] if self.percentiles else None

    def _known(self, index: int, percentile: float) -> float | None:
        found = self.percentiles[index : index + 1]
        is_there = found and abs(found[0] - percentile) < 1e-6
        return self.values_ns[index] if is_there else None

    @property
    def last(self) -> float:
        """The highest percentile that so many calls can tell from their maximum."""
        return 100 * (1 - 1 / max(self.count, 2))


def from_figures(figures: Mapping[str, float], count: int) -> Spectrum:
    """Return what result.json knows of a distribution: its named percentiles and its maximum."""
    last = 100 * (1 - 1 / max(count, 2))
    named = [(p, figures[name]) for name, p in NAMED.items() if name in figures and p < last - 1e-9]
    if "max" in figures and count:
        named.append((last, figures["max"]))
    return Spectrum([p for p, _ in named], [ns for _, ns in named], count, is_coarse=True)


def from_hgrm(path: Path, max_ns: float | None) -> Spectrum | None:
    """Return the table of a file as HdrHistogram writes it; None where there is none.

    A file does not say its unit.  It is the one in which its maximum is that of result.json.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    rows = [row for line in lines if (row := _row(line))]
    if not rows:
        return None
    scale = _unit(rows[-1][0], max_ns)
    return Spectrum([100 * p for _, p, _ in rows], [v * scale for v, _, _ in rows], rows[-1][2])


def _row(line: str) -> tuple[float, float, int] | None:
    words = line.split()
    if not 3 <= len(words) <= 4 or not words[0][0].isdigit():
        return None
    try:
        return float(words[0]), float(words[1]), int(words[2])
    except ValueError:
        return None


def _unit(maximum: float, max_ns: float | None) -> int:
    if not maximum or not max_ns:
        return 1_000_000
    return min(UNITS_NS, key=lambda ns: abs(log(maximum * ns / max_ns)))
