"""Charts as PNG, for documents: the same figures, axes and colours as on the page."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from holdfast_bench.harness.report.chart import TONES, Chart, Line, steps, stretches

INK, FAINT, GRID, SHADE = "#1b2430", "#5b6675", "#e3e7ec", "#f1f3f6"
INCHES, DPI = (9.6, 4.4), 150
TICKS = (10, 6)
LETTERS = 125  # of a legend, side by side


def draw(chart: Chart, path: Path, *, subtitle: str = "", stamp: str = "") -> None:
    """Write a chart to a file; a stamp is written across it, so that nobody quotes it."""
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _frame(chart, axes)
    _bands(chart, axes)
    _series(chart, axes)
    heading = f"{chart.title}  ({_plain(subtitle)})" if subtitle else chart.title
    axes.set_title(heading, loc="left", fontsize=12, fontweight="bold", color=INK, pad=24)
    letters = max(len(line.name) for line in chart.lines) + 8
    columns = max(1, min(6, LETTERS // letters))
    figure.legend(loc="outside lower left", ncols=columns, frameon=False, fontsize=9)
    if stamp:
        _stamp(stamp, axes)
    figure.savefig(path, metadata={"Software": None})


def _stamp(stamp: str, axes: Axes) -> None:
    axes.text(
        0.5,
        0.5,
        stamp,
        ha="center",
        va="center",
        fontsize=44,
        fontweight="bold",
        color=TONES["red"][0],
        alpha=0.45,
        rotation=14,
        zorder=9,
    )


def _plain(text: str) -> str:
    """Return text in which a dollar is no beginning of a formula."""
    return text.replace("$", r"\$")


def _frame(chart: Chart, axes: Axes) -> None:
    """Draw in places from 0 to 1, as the page does; the ticks say what stands there."""
    axes.set(xlim=(0, 1), ylim=(0, 1))
    x_ticks, y_ticks = (a.ticks(n) for a, n in zip((chart.x, chart.y), TICKS, strict=True))
    axes.set_xticks([chart.x.place(v) for v, _ in x_ticks], [t for _, t in x_ticks])
    axes.set_yticks([chart.y.place(v) for v, _ in y_ticks], [t for _, t in y_ticks])
    axes.set_xlabel(chart.x.label, fontsize=9, color=FAINT, loc="right")
    axes.set_ylabel(chart.y.label, fontsize=9, color=FAINT)
    axes.tick_params(labelsize=9, colors=FAINT, length=3)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def _bands(chart: Chart, axes: Axes) -> None:
    for band in chart.bands:
        left, right = chart.x.place(band.began), chart.x.place(band.ended)
        if not band.measured:
            axes.axvspan(left, right, color=SHADE, zorder=0, linewidth=0)
        if right < 0.999:
            axes.axvline(right, color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
        name = band.name.replace("_", " ")
        if len(name) * 0.0085 < right - left:
            axes.text(
                (left + right) / 2, 1.02, _plain(name), ha="center", fontsize=8.5, color=FAINT
            )


def _series(chart: Chart, axes: Axes) -> None:
    places = [chart.x.place(position) for position in chart.positions]
    for line, low, high in chart.stacked():
        bottom, top = ([chart.y.place(v or 0.0) for v in edge] for edge in (low, high))
        axes.fill_between(
            places,
            bottom,
            top,
            label=_plain(line.name),
            color=TONES[line.tone][0],
            alpha=0.8,
            linewidth=0,
        )
    for line in chart.plain():
        _line(chart, axes, line)


def _line(chart: Chart, axes: Axes, line: Line) -> None:
    label: str | None = _plain(line.name)
    for points in stretches(chart.positions, line) or [[]]:
        drawn = steps(points) if chart.stepped else points
        axes.plot(
            [chart.x.place(position) for position, _ in drawn],
            [chart.y.place(value) for _, value in drawn],
            label=label,
            color=TONES[line.tone][0],
            linewidth=1.6,
            linestyle=(0, (4, 2)) if line.dashed else "solid",
            marker="." if len(drawn) == 1 else "",
        )
        label = None
