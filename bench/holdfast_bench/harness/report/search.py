"""What a search for the limit found: latency over the rate that was tried, step by step."""

from __future__ import annotations

from holdfast_bench.harness.report import units
from holdfast_bench.harness.report.axes import from_zero, latencies
from holdfast_bench.harness.report.chart import Chart, Line
from holdfast_bench.harness.report.run import Row, Run
from holdfast_bench.harness.report.tables import Table
from holdfast_bench.harness.report.verdict import value


def over_rate(run: Run) -> Chart | None:
    """Return latency over rate; None of a run that was no search."""
    steps = _steps(run)
    if not steps:
        return None
    lines = [
        Line(name, [units.milliseconds(step[name]) for step in steps], tone)
        for name, tone in (("p50", "blue"), ("p99", "orange"))
    ]
    rates = [float(step["rate"]) for step in steps]
    return Chart(
        "latency-over-rate",
        "Latency over rate",
        found(run),
        from_zero("sessions started a second", rates),
        latencies("ms", (one for line in lines for one in line.values)),
        rates,
        lines,
    )


def found(run: Run) -> str:
    """Return the limit in words."""
    search = run.part("saturation")
    sustained = search.get("sustained_rate")
    if not sustained:
        return f"No rate that was tried kept {search.get('objective')}."
    return f"{search.get('objective')} was kept up to {units.tick(sustained)} sessions a second."


def steps(run: Run) -> Table:
    """Return every rate that was tried."""
    objective = str(run.part("saturation").get("objective"))
    rows, marks = [], []
    for step in _steps(run):
        rows.append(
            (
                units.tick(step["rate"]),
                units.fixed(step["rps"], 0),
                units.fixed(units.milliseconds(step["p50"])),
                units.fixed(units.milliseconds(step["p99"])),
                units.count(step["dropped"]),
                value({"expression": objective, "value": step["value"]}),
                _verdict(step),
            )
        )
        marks.append("" if step["holds"] and step["is_valid"] else "bad")
    heads = ("#sessions/s", "#op/s", "#p50 ms", "#p99 ms", "#dropped", f"#{objective}", "verdict")
    return Table("Search for the limit", heads, rows, marks)


def _steps(run: Run) -> list[Row]:
    tried = run.part("saturation").get("steps") or []
    return sorted(tried, key=lambda step: float(step["rate"]))


def _verdict(step: Row) -> str:
    if not step["is_valid"]:
        return f"generator too slow: {'; '.join(step['reasons'])}"
    return "✓ kept" if step["holds"] else "✗ not kept"
