"""The head of the page: which run, what became of it, and its key figures."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from holdfast_bench.harness.report import units
from holdfast_bench.harness.report.html import Markup, element, joined
from holdfast_bench.harness.report.run import REFUSALS, Run
from holdfast_bench.harness.report.verdict import Headline


def header(run: Run, headline: Headline) -> Markup:
    """Return the name of the run, its verdict and its key figures."""
    described = str(run.result.get("description") or "")
    return element(
        "header",
        element("p", "Holdfast load run", class_="eyebrow"),
        element("h1", run.name),
        element("p", described, class_="lead") if described else None,
        element("p", joined(_facts(run), "  ·  "), class_="facts"),
        banner(headline),
        key_figures(run, headline),
    )


def _facts(run: Run) -> Iterator[str]:
    if date := run.result.get("date"):
        yield element("time", moment(str(date)), datetime=str(date))
    options = run.part("options")
    if transport := options.get("transport"):
        yield f"{transport} transport"
    if measured := run.measured:
        yield f"{units.duration(measured.ended - measured.began)} measured"
    yield f"seed {run.result.get('seed', units.ABSENT)}"
    if commit := run.environment.get("commit"):
        dirty = " with local changes" if run.environment.get("dirty") else ""
        yield f"commit {str(commit)[:12]}{dirty}"
    if run.environment.get("colocated"):
        yield "generator, server and store on one machine"


def moment(date: str) -> str:
    """Return a date as a person reads it; what is none stays as it is."""
    try:
        return datetime.fromisoformat(date).strftime("%-d %B %Y, %H:%M %Z").strip()
    except ValueError:
        return date


def banner(headline: Headline) -> Markup:
    """Return the verdict in large words, with its reasons."""
    reasons = [element("li", reason) for reason in headline.reasons]
    return element(
        "section",
        element("p", headline.word, class_="word"),
        element("p", headline.meaning),
        element("ul", *reasons) if reasons else None,
        class_=f"banner {headline.tone}{'' if headline.reportable else ' large'}",
        aria_label="Verdict",
    )


def key_figures(run: Run, headline: Headline) -> Markup:
    """Return the figures that a reader looks for first."""
    tiles = [_tile(*figure) for figure in _figures(run)]
    unusable = "" if headline.reportable else " unusable"
    return element("dl", *tiles, class_=f"tiles{unusable}")


def _tile(name: str, value: str, unit: str, beside: str, tone: str = "") -> Markup:
    return element(
        "div",
        element("dt", name),
        element(
            "dd",
            element("span", value),
            element("small", f" {unit}") if unit else None,
            class_="value",
        ),
        element("dd", beside, class_="beside") if beside else None,
        class_=f"tile {tone}".strip(),
    )


def _figures(run: Run) -> Iterator[tuple[str, str, str, str, str]]:
    sold, sessions = run.part("units"), run.part("sessions")
    calls = run.result.get("count")
    yield "Rate", units.number(run.result.get("rps")), "op/s", f"{units.count(calls)} calls", ""
    latencies = overall(run)
    for name, percentile in (("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)):
        ms = units.milliseconds(latencies.get(percentile))
        yield f"Latency {name}", units.number(ms), "ms", "response time", ""
    held = (
        f"of {units.count(sold.get('on_sale'))} on sale" if sold.get("on_sale") is not None else ""
    )
    yield "Sold", units.count(sold.get("sold")), "units", held, ""
    refused = sum(run.outcomes[name] for name in REFUSALS)
    sold_out = f"{units.count(run.outcomes['sold_out'])} sold out"
    yield "Refused", units.count(refused), "calls", sold_out, ""
    oversold = sold.get("oversold")
    tone = "" if oversold is None else "bad" if oversold else "good"
    yield "Oversold", units.count(oversold), "units", "must be 0", tone
    dropped, planned = sessions.get("dropped"), sessions.get("planned")
    beside = f"of {units.count(planned)} planned"
    yield "Dropped starts", units.count(dropped), "", beside, "doubtful" if dropped else ""
    alive, finished = sessions.get("alive_max"), sessions.get("finished")
    yield "Alive at once", units.count(alive), "sessions", f"{units.count(finished)} finished", ""
    cost = run.part("generator").get("cpu_us_per_operation")
    yield "Generator CPU", units.number(cost), "µs/op", "its own cost", ""


def overall(run: Run) -> dict[float, float]:
    """Return the latencies in ns of all calls, by percentile."""
    rows = run.rows("latencyDistribution")
    return {float(row["percentage"]): float(row["latency"]) for row in rows}
