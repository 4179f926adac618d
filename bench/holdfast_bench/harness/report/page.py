"""One self-contained page: style, script and figures in it, and nothing fetched from anywhere."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from importlib.resources import files

from holdfast_bench.harness.report import search, sections
from holdfast_bench.harness.report.chart import TONES, Chart
from holdfast_bench.harness.report.drawing import drawings
from holdfast_bench.harness.report.figures import charts
from holdfast_bench.harness.report.header import header
from holdfast_bench.harness.report.html import Markup, element
from holdfast_bench.harness.report.run import Run
from holdfast_bench.harness.report.tables import Table, of_chart
from holdfast_bench.harness.report.verdict import headline

HERE = "holdfast_bench.harness.report"


def of_run(run: Run) -> str:
    """Return the page of a run."""
    verdict = headline(run)
    tables = [search.steps(run), sections.calls(run), sections.outcomes(run)]
    judged = [sections.thresholds(run), sections.promises(run)]
    context = [sections.sessions(run), sections.phases(run)]
    made = [sections.options(run), sections.environment(run)]
    parts = [
        header(run, verdict),
        section("charts", "Charts", *(block(chart) for chart in charts(run))),
        section("calls", "Calls", *_drawn(tables)),
        section("verdicts", "Thresholds and promises", *_drawn(judged)),
        section("sessions", "Sessions", *_drawn(context), notes(run)),
        section("environment", "Environment", *_drawn(made)),
    ]
    return document(f"{verdict.word}: {run.name}", [part for part in parts if part])


def document(title: str, parts: Sequence[Markup]) -> str:
    """Return a page that may run the script and use the style it carries, and nothing else."""
    style, script = _colours() + _file("page.css"), _file("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(style)),
    )
    body = element(
        "body",
        element("a", "Skip to the charts", href="#charts", class_="skip"),
        element("main", *parts),
        element("script", Markup(script)),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def section(key: str, title: str, *parts: Markup | None) -> Markup | None:
    """Return a part of the page with a heading; None when there is nothing in it."""
    if not any(parts):
        return None
    return element("section", element("h2", title), *parts, id=key, class_="part")


def block(chart: Chart) -> Markup:
    """Return a chart with its legend and, behind a fold, its figures."""
    plot = element(
        "div",
        drawings(chart),
        element("output", class_="reading", hidden="hidden"),
        class_="plot",
        tabindex="0",
        role="group",
        data_unit=chart.y.label.partition(",")[0],
        aria_label=f"{chart.title}. Arrow keys read its figures.",
    )
    return element(
        "figure",
        element("figcaption", element("h3", chart.title), element("p", chart.note)),
        _legend(chart),
        plot,
        element("details", element("summary", "Figures as a table"), of_chart(chart)),
        id=chart.key,
    )


def _legend(chart: Chart) -> Markup:
    entries = []
    for index, line in enumerate(chart.lines):
        look = "layer" if line.layer else "dashed" if line.dashed else ""
        swatch = element("span", class_=f"swatch {look} tone-{line.tone}", aria_hidden="true")
        if line.layer:
            entries.append(element("li", element("span", swatch, line.name, class_="entry")))
        else:
            button = element(
                "button",
                swatch,
                line.name,
                type="button",
                aria_pressed="true",
                data_series=str(index),
                class_="entry",
            )
            entries.append(element("li", button))
    return element("ul", *entries, class_="legend", aria_label=f"Series of {chart.title}")


def notes(run: Run) -> Markup | None:
    """Return what the harness wants said of the run."""
    told = run.notes
    return element("ul", *(element("li", note) for note in told), class_="notes") if told else None


def _drawn(tables: Iterable[Table]) -> list[Markup]:
    return [table.drawn() for table in tables if table.rows]


def _colours() -> str:
    light = "".join(f"--{name}:{tone};" for name, (tone, _) in TONES.items())
    dark = "".join(f"--{name}:{tone};" for name, (_, tone) in TONES.items())
    tones = "".join(f".tone-{name}{{--tone:var(--{name})}}" for name in TONES)
    return f":root{{{light}}}\n@media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n{tones}\n"


def _file(name: str) -> str:
    return files(HERE).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
