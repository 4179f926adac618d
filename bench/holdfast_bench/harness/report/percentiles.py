"""Latency over percentile, the chart that HdrHistogram is known for."""

from __future__ import annotations

from collections.abc import Sequence, Set

from holdfast_bench.harness.report import units
from holdfast_bench.harness.report.axes import Nines, latencies
from holdfast_bench.harness.report.chart import SERIES_TONES, Chart, Line
from holdfast_bench.harness.report.run import Run
from holdfast_bench.harness.report.spectrum import Spectrum

RPCS_MAX = 6
A_NINE = 12  # points drawn for each further nine
LAST_MAX = 99.9999


def over_percentile(run: Run) -> Chart | None:
    """Return response and service times of the most frequent RPCs."""
    lines: list[tuple[str, Spectrum, str, bool]] = []
    for (rpc, _), tone in zip(run.rpcs[:RPCS_MAX], SERIES_TONES, strict=False):
        lines.append((f"{rpc} response", run.spectrum(rpc), tone, False))
        lines.append((f"{rpc} service", run.spectrum(rpc, "service"), tone, True))
    return spectra(
        "latency-over-percentile",
        "Latency over percentile",
        "Response time counts from the planned moment of a call, service time from its sending: "
        "where the two part, calls waited to be sent.",
        lines,
    )


def spectra(
    key: str, title: str, note: str, lines: Sequence[tuple[str, Spectrum, str, bool]]
) -> Chart | None:
    """Return distributions side by side: each a name, its values, a tone, and whether dashed."""
    known = [line for line in lines if line[1].percentiles]
    if not known:
        return None
    last = min(LAST_MAX, max(spectrum.last for _, spectrum, _, _ in known))
    grid = positions(last, {spectrum.last for _, spectrum, _, _ in known})
    drawn = [
        Line(name, [_at(spectrum, p) for p in grid], tone, dashed, sparse=spectrum.is_coarse)
        for name, spectrum, tone, dashed in known
    ]
    return Chart(
        key,
        title,
        note,
        Nines("percentile", grid[-1]),
        latencies("ms", (value for line in drawn for value in line.values)),
        grid,
        drawn,
        show_position=units.percentile,
    )


def positions(last: float, more: Set[float] = frozenset()) -> list[float]:
    """Return percentiles up to the last one, so many for each nine, the named ones among them."""
    found, nine = {0.0, 50.0, 75.0, 95.0, last} | more, 0
    while (low := 100 - 10.0 ** (2 - nine)) < last:
        part = (100 - low) * 0.9
        found |= {round(low + part * (1 - 10 ** (-i / A_NINE)) / 0.9, 6) for i in range(A_NINE)}
        nine += 1
    return sorted(p for p in found if p <= last)


def _at(spectrum: Spectrum, percentile: float) -> float | None:
    """Return a value in ms; None beyond what the number of calls can tell."""
    if percentile > spectrum.last + 1e-6:
        return None
    return units.milliseconds(spectrum.at(percentile))
