"""Runs over one another: latency over percentile for each RPC, and throughput over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from holdfast_bench.harness.report import units
from holdfast_bench.harness.report.axes import from_zero
from holdfast_bench.harness.report.chart import SERIES_TONES, Chart, Line
from holdfast_bench.harness.report.html import element
from holdfast_bench.harness.report.page import block, document, section
from holdfast_bench.harness.report.percentiles import spectra
from holdfast_bench.harness.report.run import OUTCOMES, Run, read
from holdfast_bench.harness.report.tables import Table
from holdfast_bench.harness.report.timeline import Timeline, mean
from holdfast_bench.harness.report.verdict import headline

RPCS_MAX = 4

Sides = Mapping[str, Sequence[Path]]
Labelled = tuple[str, Run, str]  # what a run is called here, the run, and its tone


def overlay(
    dirs: Sequence[Path] | Sides, out: Path, *, title: str = "", tables: Sequence[Table] = ()
) -> Path:
    """Write a page that lays runs over one another, and return it.

    The runs of a side share a colour; without sides each run has one of its own.
    """
    sides = dirs if isinstance(dirs, Mapping) else {path.name: [path] for path in dirs}
    runs = _labelled(sides)
    title = title or " / ".join(sides)
    parts = [
        element(
            "header",
            element("p", "Holdfast load runs compared", class_="eyebrow"),
            element("h1", title),
        ),
        section("verdicts", "Verdicts", *(table.drawn() for table in tables)),
        section("charts", "Charts", *(block(chart) for chart in charts(runs))),
        section("runs", "Runs", _runs(runs).drawn()),
    ]
    out.write_text(document(title, [part for part in parts if part]), encoding="utf-8")
    return out


def _labelled(sides: Sides) -> list[Labelled]:
    tones = [SERIES_TONES[i % len(SERIES_TONES)] for i in range(len(sides))]
    return [
        (f"{side} {number}" if len(folders) > 1 else side, read(folder), tone)
        for (side, folders), tone in zip(sides.items(), tones, strict=True)
        for number, folder in enumerate(folders, start=1)
    ]


def charts(runs: Sequence[Labelled]) -> list[Chart]:
    """Return the charts that lay these runs over one another."""
    counts: dict[str, int] = {}
    for _, run, _ in runs:
        for rpc, figures in run.rpcs:
            counts[rpc] = counts.get(rpc, 0) + int(figures.get("count", 0))
    frequent = sorted(counts, key=lambda rpc: -counts[rpc])[:RPCS_MAX]
    found = [_percentiles(runs, rpc, index) for index, rpc in enumerate(frequent)]
    return [chart for chart in (*found, throughput(runs)) if chart is not None]


def _percentiles(runs: Sequence[Labelled], rpc: str, index: int) -> Chart | None:
    return spectra(
        f"latency-over-percentile-{index}",
        f"Latency of {rpc} over percentile",
        "Response time, from the planned moment of a call.",
        [(name, run.spectrum(rpc), tone, False) for name, run, tone in runs],
    )


def throughput(runs: Sequence[Labelled]) -> Chart | None:
    """Return how many calls were answered over time, each run from its own beginning."""
    series = {name: _answered(run) for name, run, _ in runs}
    seconds = [second for points in series.values() for second, _ in points]
    if not seconds:
        return None
    longest = max((run for _, run, _ in runs), key=lambda run: run.ended)
    timeline = Timeline.over(longest, seconds)
    lines = [Line(name, timeline.fold(series[name], mean), tone) for name, _, tone in runs]
    note = "Calls answered a second." + timeline.says("the mean")
    axis = from_zero("op/s", (value for line in lines for value in line.values))
    chart = timeline.chart(("throughput", "Throughput", note), axis, lines)
    return replace(chart, show_value=units.count)


def _answered(run: Run) -> list[tuple[float, float | None]]:
    return [(t, sum(row.get(name, 0) for name in OUTCOMES)) for t, row in run.timed("series")]


def _runs(runs: Sequence[Labelled]) -> Table:
    verdicts = [headline(run) for _, run, _ in runs]
    rows = [
        (
            name,
            run.name,
            verdict.word,
            units.number(run.result.get("rps")),
            str(run.result.get("date", "")),
        )
        for (name, run, _), verdict in zip(runs, verdicts, strict=True)
    ]
    marks = ["" if verdict.reportable else "bad" for verdict in verdicts]
    return Table("Runs", ("run", "scenario", "verdict", "#op/s", "date"), rows, marks)
