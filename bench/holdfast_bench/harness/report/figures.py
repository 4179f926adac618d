"""The charts of a run over time, and all of them in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from holdfast_bench.harness.report import units
from holdfast_bench.harness.report.axes import from_zero, latencies
from holdfast_bench.harness.report.chart import Chart, Line
from holdfast_bench.harness.report.levels import cpu, memory, pressure, stock
from holdfast_bench.harness.report.percentiles import over_percentile
from holdfast_bench.harness.report.run import OUTCOMES, Run
from holdfast_bench.harness.report.search import over_rate
from holdfast_bench.harness.report.timeline import Timeline, mean

OUTCOME_TONES = {
    "ok": "blue",
    "sold_out": "gold",
    "refused": "purple",
    "throttled": "teal",
    "shed": "pink",
    "deadline": "orange",
    "error": "red",
}
LATENCIES = (("p50", "p50", "blue"), ("p99", "p99", "orange"), ("max", "slowest", "red"))
SESSIONS = (
    ("offered", "planned", "grey"),
    ("started", "started", "blue"),
    ("finished", "finished", "green"),
)


def charts(run: Run) -> list[Chart]:
    """Return every chart that the run has figures for."""
    made = (over_rate, over_percentile, latency, throughput, sessions, stock, pressure, cpu, memory)
    return [chart for make in made if (chart := make(run)) is not None]


def latency(run: Run) -> Chart | None:
    """Return response times over time."""
    timed = list(run.timed("series"))
    timeline = Timeline.over(run, (t for t, _ in timed))
    lines = []
    for key, name, tone in LATENCIES:
        points = [(t, units.milliseconds(row.get(key) or None)) for t, row in timed]
        lines.append(Line(name, timeline.fold(points, max), tone))
    values = [value for line in lines for value in line.values]
    if not any(values):
        return None
    note = "Response times of all calls, by the second of their answer."
    titles = ("latency-over-time", "Latency over time", note + timeline.says("the worst"))
    return timeline.chart(titles, latencies("ms", values), lines)


def throughput(run: Run) -> Chart | None:
    """Return how calls ended over time, one outcome on the other."""
    timeline, rates = _rates(run, OUTCOMES)
    lines = [
        Line(name.replace("_", " "), values, OUTCOME_TONES[name], layer=True)
        for name, values in rates.items()
        if any(values)
    ]
    if not lines:
        return None
    totals = [sum(line.values[i] or 0.0 for line in lines) for i in range(len(timeline.starts))]
    note = "Calls a second by how they ended, one on the other; being sold out is an answer."
    titles = ("throughput", "Throughput and refusals", note + timeline.says("the mean"))
    return replace(timeline.chart(titles, from_zero("op/s", totals), lines), show_value=units.count)


def sessions(run: Run) -> Chart | None:
    """Return how many sessions were planned, began and ended over time."""
    timeline, rates = _rates(run, [key for key, _, _ in SESSIONS])
    lines = [Line(name, rates[key], tone, key == "offered") for key, name, tone in SESSIONS]
    values = [value for line in lines for value in line.values]
    if not any(values):
        return None
    note = "Sessions a second. Where fewer started than were planned, starts were dropped."
    titles = ("sessions-over-time", "Sessions", note + timeline.says("the mean"))
    return replace(
        timeline.chart(titles, from_zero("sessions/s", values), lines), show_value=units.count
    )


def _rates(run: Run, keys: Sequence[str]) -> tuple[Timeline, dict[str, list[float | None]]]:
    timed = list(run.timed("series"))
    timeline = Timeline.over(run, (t for t, _ in timed))
    return timeline, {
        key: timeline.fold(((t, row.get(key)) for t, row in timed), mean) for key in keys
    }
