"""The charts of what is there rather than of what happens: stock, pressure, processors, memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from holdfast_bench.harness.report import units
from holdfast_bench.harness.report.axes import Steps, from_zero
from holdfast_bench.harness.report.chart import SERIES_TONES, Chart, Line
from holdfast_bench.harness.report.run import Run
from holdfast_bench.harness.report.timeline import Point, Timeline, carried, last, mean

PRESSURES = ("plenty", "normal", "low", "scarce", "sold out")
PROCESS_TONES = {"server": "blue", "store": "orange", "generator": "grey"}
SKUS_MAX = 6
UNSEEN_MAX = 2  # samples of a process that may be missing before its line has a gap

Levels = Mapping[str, Sequence[Point]]


def stock(run: Run) -> Chart | None:
    """Return the units left of the items that sold most."""
    levels = _levels(run, "stock", ("sku", "available"), _as_is)
    timeline, lines = _by_sku(run, levels, _hottest(levels))
    if not lines:
        return None
    note = "Units that could still be held"
    is_part = len(levels) > len(lines)
    note += f": the {len(lines)} of {len(levels):,} items that fell most." if is_part else "."
    axis = from_zero("units", (value for line in lines for value in line.values))
    titles = ("stock", "Stock left", note + timeline.says("the end"))
    return replace(timeline.chart(titles, axis, lines), stepped=True, show_value=units.count)


def pressure(run: Run) -> Chart | None:
    """Return what agents were told of how close the same items are to selling out."""
    hottest = _hottest(_levels(run, "stock", ("sku", "available"), _as_is))
    told = _levels(run, "stock", ("sku", "pressure"), pressure_step)
    timeline, lines = _by_sku(run, told, hottest)
    if not any(value for line in lines for value in line.values):
        return None
    note = "What agents were told of how close these items are to selling out."
    titles = ("pressure", "Pressure", note + timeline.says("the end"))
    chart = timeline.chart(titles, Steps("", PRESSURES), lines)
    return replace(chart, stepped=True, show_value=pressure_name)


def cpu(run: Run) -> Chart | None:
    """Return the processor time of the processes."""
    levels = _levels(run, "resources", ("process", "cpu_share"), lambda share: 100 * float(share))
    note = "100 % is one core. Server, store and generator share the cores of this machine."
    return _processes(run, levels, ("cpu", "CPU", note), "% of a core")


def memory(run: Run) -> Chart | None:
    """Return the resident memory of the processes."""
    levels = _levels(
        run, "resources", ("process", "rss_bytes"), lambda size: float(size) / units.MIB
    )
    return _processes(run, levels, ("memory", "Memory", "Resident memory."), "MiB")


def pressure_step(value: object) -> float | None:
    """Return a pressure as its number; it may be told as one, or by its name."""
    if isinstance(value, int | float):
        return float(value) if 1 <= value <= len(PRESSURES) else None
    name = str(value).lower().rpartition(".")[2].removeprefix("pressure_").replace("_", " ")
    return PRESSURES.index(name) + 1.0 if name in PRESSURES else None


def pressure_name(step: float | None) -> str:
    """Return the name of a pressure."""
    return units.ABSENT if step is None else PRESSURES[int(step) - 1]


def _levels(
    run: Run, key: str, of: tuple[str, str], read: Callable[[Any], float | None]
) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    named, field = of
    for second, row in run.timed(key):
        value = row.get(field)
        seen = None if value is None else read(value)
        found.setdefault(str(row.get(named, "")), []).append((second, seen))
    return found


def _as_is(value: Any) -> float:
    return float(value)


def _hottest(levels: Levels) -> list[str]:
    return sorted(levels, key=lambda sku: (-_fall(levels[sku]), sku))[:SKUS_MAX]


def _fall(points: Sequence[Point]) -> float:
    values = [value for _, value in points if value is not None]
    return max(values) - min(values) if values else -inf


def _by_sku(run: Run, levels: Levels, skus: Sequence[str]) -> tuple[Timeline, list[Line]]:
    timeline = _timeline(run, levels)
    lines = [
        Line(sku, carried(timeline.fold(levels.get(sku, ()), last), len(timeline.starts)), tone)
        for sku, tone in zip(skus, SERIES_TONES, strict=False)
    ]
    return timeline, lines


def _processes(run: Run, levels: Levels, titles: tuple[str, str, str], unit: str) -> Chart | None:
    key, title, note = titles
    timeline = _timeline(run, levels)
    lines = [
        Line(process, carried(timeline.fold(points, mean), UNSEEN_MAX), tone)
        for process, points in sorted(levels.items(), key=lambda one: _rank(one[0]))
        if (tone := PROCESS_TONES.get(process, "purple"))
    ]
    values = [value for line in lines for value in line.values]
    if not any(values):
        return None
    chart = timeline.chart(
        (key, title, note + timeline.says("the mean")), from_zero(unit, values), lines
    )
    return replace(chart, show_value=lambda value: units.fixed(value, 1))


def _rank(process: str) -> tuple[int, str]:
    known = list(PROCESS_TONES)
    return (known.index(process) if process in known else len(known), process)


def _timeline(run: Run, levels: Levels) -> Timeline:
    return Timeline.over(run, (second for points in levels.values() for second, _ in points))
