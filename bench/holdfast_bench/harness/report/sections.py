"""The tables of a run: calls, thresholds, promises, sessions, and where it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from holdfast_bench.harness.report import units
from holdfast_bench.harness.report.run import OUTCOMES, Run
from holdfast_bench.harness.report.tables import Table
from holdfast_bench.harness.report.verdict import value

PERCENTILES = {
    "p50": 50.0,
    "p75": 75.0,
    "p90": 90.0,
    "p95": 95.0,
    "p99": 99.0,
    "p99_9": 99.9,
    "p99_99": 99.99,
}
VIOLATIONS_MAX = 20


def calls(run: Run) -> Table:
    """Return the percentiles of each RPC, of response and of service time."""
    heads = [f"#{name.replace('_', '.')}" for name in (*PERCENTILES, "max", "mean")]
    rows = [
        (rpc, kind, units.count(figures.get("count")), *_latencies(figures, kind))
        for rpc, figures in run.rpcs
        for kind in ("response", "service")
    ]
    caption = f"Latency of each RPC in ms ({units.ABSENT} where there were too few calls to tell)"
    return Table(caption, ("RPC", "time", "#calls", *heads), rows)


def _latencies(figures: Mapping[str, object], kind: str) -> Iterator[str]:
    found, count = figures.get(kind), figures.get("count")
    known = found if isinstance(found, Mapping) else {}
    calls = count if isinstance(count, int) else 0
    for name in (*PERCENTILES, "max", "mean"):
        told = name not in PERCENTILES or calls * (100 - PERCENTILES[name]) >= 100 - 1e-6
        yield units.fixed(units.milliseconds(known.get(name)) if told else None)


def outcomes(run: Run) -> Table:
    """Return how the calls of each RPC ended."""
    seen = [name for name in OUTCOMES if run.outcomes[name] or name in ("ok", "sold_out", "error")]
    rows = []
    for rpc, figures in run.rpcs:
        ended = figures.get("outcomes", {})
        reasons = sorted(figures.get("reasons", {}).items(), key=lambda one: -one[1])
        told = ", ".join(f"{name} {units.count(count)}" for name, count in reasons)
        rows.append((rpc, *(units.count(ended.get(name, 0)) for name in seen), told))
    heads = [f"#{name.replace('_', ' ')}" for name in seen]
    return Table("How the calls ended", ("RPC", *heads, "reasons"), rows)


def thresholds(run: Run) -> Table:
    """Return what the run had to meet."""
    rows, marks = [], []
    for one in run.rows("thresholds"):
        rows.append((str(one["expression"]), value(one), _met(one["holds"])))
        marks.append("good" if one["holds"] else "bad")
    return Table("Thresholds", ("threshold", "#was", "verdict"), rows, marks)


def _met(holds: object) -> str:
    return "✓ met" if holds else "✗ not met"


def promises(run: Run) -> Table:
    """Return what the server promises, whether it was kept, and where it was not."""
    rows, marks = [], []
    for one in run.rows("verdicts"):
        violations = [str(violation) for violation in one.get("violations", ())]
        shown = "; ".join(violations[:VIOLATIONS_MAX])
        more = len(violations) - VIOLATIONS_MAX
        kept = "✓ kept" if one["holds"] else "✗ BROKEN"
        rows.append(
            (
                str(one["name"]),
                kept,
                units.count(one.get("looked_at")),
                shown + (f"; and {more:,} more" if more > 0 else ""),
            )
        )
        marks.append("good" if one["holds"] else "bad")
    return Table("Promises", ("promise", "verdict", "#looked at", "violations"), rows, marks)


def sessions(run: Run) -> Table:
    """Return what became of the sessions, and what the generator adds to every figure."""
    found = run.part("sessions")
    rows = [(f"sessions {name.replace('_', ' ')}", units.count(found[name])) for name in found]
    rows += [
        (f"units {name.replace('_', ' ')}", units.count(n)) for name, n in run.part("units").items()
    ]
    generator = run.part("generator")
    lag, loop = _part(generator, "lag"), _part(generator, "loop_lag_ms")
    rows += [
        (
            f"generator sent late, {name.replace('_', '.')}",
            f"{units.fixed(units.milliseconds(lag[name]))} ms",
        )
        for name in ("p50", "p99", "p99_9", "max")
        if name in lag
    ]
    rows += [(f"generator loop late, {name}", f"{units.fixed(loop[name])} ms") for name in loop]
    if "cpu_s" in generator:
        rows.append(("generator CPU", f"{units.fixed(generator['cpu_s'])} s"))
    return Table("Sessions, units and generator", ("what", "#how much"), rows)


def phases(run: Run) -> Table:
    """Return when each phase began and ended."""
    rows = [
        (
            band.name.replace("_", " "),
            units.fixed(band.began, 1),
            units.fixed(band.ended, 1),
            "yes" if band.measured else "no",
        )
        for band in run.bands
    ]
    return Table("Phases", ("phase", "#from s", "#to s", "measured"), rows)


def environment(run: Run) -> Table:
    """Return where and how the run was made."""
    return Table("Environment", ("what", "value"), list(_flat(run.environment)))


def options(run: Run) -> Table:
    """Return the scenario as it was read."""
    return Table("Scenario", ("option", "value"), list(_flat(run.part("options"))))


def _flat(tree: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    for name, found in tree.items():
        path = f"{above}.{name}" if above else str(name)
        if isinstance(found, Mapping) and found:
            yield from _flat(found, path)
        elif name == "command" and isinstance(found, list):
            yield path, " ".join(str(word) for word in found)
        else:
            yield path, _shown(found)


def _shown(found: object) -> str:
    if isinstance(found, Sequence) and not isinstance(found, str):
        return ", ".join(_shown(one) for one in found) or units.ABSENT
    if isinstance(found, bool):
        return "yes" if found else "no"
    return units.ABSENT if found in (None, "") or found == {} else str(found)


def _part(tree: Mapping[str, object], key: str) -> Mapping[str, float]:
    found = tree.get(key)
    return found if isinstance(found, Mapping) else {}
