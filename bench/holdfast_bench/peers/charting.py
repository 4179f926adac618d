"""Draw the comparison: operations a second, latency, processor time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, THEIRS, PALE, WRONG = "#0b6e4f", "#7a8793", "#c3cad0", "#b3261e"


def draw(contestants: Sequence[Any], load: str, path: Path) -> None:
    """Write three bar charts of the contestants, in their order, to a PNG."""
    figure = Figure(figsize=(12, 1.2 + 0.55 * len(contestants)), layout="constrained")
    rates, latencies, costs = figure.subplots(1, 3, sharey=True)
    figure.suptitle(f"Holdfast and its peers, load {load!r}")
    names = [_label(each) for each in contestants]
    colours = [_colour(each) for each in contestants]
    _bars(rates, names, [each["operations_per_s"] for each in contestants], colours)
    rates.set_title("operations/s")
    _bars(latencies, names, [each["p99_ms"] for each in contestants], [PALE] * len(names))
    medians = [each["p50_ms"] for each in contestants]
    latencies.barh(names, medians, color=colours)
    latencies.set_title("service ms: p50, p99 pale")
    servers = [each["cpu_s_per_1000"]["server"] for each in contestants]
    stores = [each["cpu_s_per_1000"]["store"] for each in contestants]
    costs.barh(names, servers, color=colours)
    both = costs.barh(names, stores, left=servers, color=PALE)
    totals = [f"{sum(pair):.2f}" for pair in zip(servers, stores, strict=True)]
    costs.bar_label(both, totals, padding=3)
    costs.set_title("CPU s/1,000: server, store pale")
    rates.invert_yaxis()
    _tidy(rates, latencies, costs)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _tidy(*charts: Axes) -> None:
    for axes in charts:
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.15)


def _label(contestant: Any) -> str:
    oversold, turns = contestant["oversold"], len(contestant["turns"])
    valid = contestant["valid_turns"]
    words = [f"oversold {oversold}"] if oversold else []
    words += [f"{turns - valid} of {turns} turns not valid"] if valid < turns else []
    return "\n".join([str(contestant["name"]), *words])


def _colour(contestant: Any) -> str:
    if contestant["oversold"]:
        return WRONG
    return OURS if contestant["name"] == "holdfast" else THEIRS


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], colours: list[str]) -> None:
    bars = axes.barh(names, values, color=colours)
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
