"""A result as a few tables, for people: what was measured, what was promised, what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

NS_PER_MS = 1e6
TIMES = ("p50", "p90", "p99", "p99_9", "max")


class Table(NamedTuple):
    """Columns, of which those that start with # are numbers, and rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the tables of a result."""
    yield _calls(result)
    yield _sessions(result)
    expected = [
        (one["expression"], _value(one), _yes(one["holds"])) for one in result["thresholds"]
    ]
    if expected:
        yield Table(("expected", "#found", "holds"), expected)
    promised = [
        (one["name"], f"{one['looked_at']:,}", _yes(one["holds"])) for one in result["verdicts"]
    ]
    if promised:
        yield Table(("promised", "#looked at", "holds"), promised)


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is said besides the tables."""
    generator = result["generator"]
    loop_ms, lag_ms = generator["loop_lag_ms"]["p99"], _ms(generator["lag"]["p99"])
    yield (
        f"generator: {generator['cpu_us_per_operation']:.0f} us CPU a call; at p99 calls left "
        f"{lag_ms} ms late, its loop was {loop_ms:.1f} ms late"
    )
    for reason in generator["reasons"]:
        yield f"GENERATOR NOT VALID: {reason}"
    for verdict in result["verdicts"]:
        for violation in verdict["violations"]:
            yield f"BROKEN: {verdict['name']}: {violation}"
    if result["end_reason"] != "completed":
        yield f"ENDED EARLY: {result['end_reason']}"


def _calls(result: Mapping[str, Any]) -> Table:
    columns = ["call", "#calls", "#ok", *(f"#ms {name.replace('_', '.')}" for name in TIMES)]
    rows = []
    others: dict[str, None] = {}
    for rpc in result["rpcs"].values():
        others |= dict.fromkeys(
            name for name, count in rpc["outcomes"].items() if count and name != "ok"
        )
    for name, rpc in result["rpcs"].items():
        outcomes = rpc["outcomes"]
        times = [_ms(rpc["response"][time]) for time in TIMES]
        extra = [f"{outcomes[other]:,}" for other in others]
        rows.append((name, f"{rpc['count']:,}", f"{outcomes['ok']:,}", *times, *extra))
    return Table((*columns, *(f"#{other}" for other in others)), rows)


def _sessions(result: Mapping[str, Any]) -> Table:
    sessions, units = result["sessions"], result["units"]
    rows = [
        (f"sessions {name.replace('_', ' ')}", f"{count:,}") for name, count in sessions.items()
    ]
    rows += [
        (f"units {name.replace('_', ' ')}", f"{count:,}")
        for name, count in units.items()
        if count is not None
    ]
    rows.append(("calls a second", f"{result['rps']:,.0f}"))
    return Table(("what", "#"), rows)


def _ms(ns: float) -> str:
    return f"{ns / NS_PER_MS:,.1f}"


def _value(threshold: Mapping[str, Any]) -> str:
    value = threshold["value"]
    if value is None:
        return "nothing"
    words = threshold["expression"].split()[-1]
    return f"{_ms(value)} ms" if words.endswith("s") else f"{value:g}"


def _yes(holds: bool) -> str:
    return "yes" if holds else "NO"
