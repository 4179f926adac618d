"""`demo`: hundreds of agents race for a real catalogue; the exit status follows the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click
import uvloop
from rich.console import Console

from holdfast import HoldfastError
from holdfast_server import logs
from holdfast_server.cli.terminal import Failure, Output, json_option
from holdfast_server.demo import PACINGS, Race, Result, run
from holdfast_server.demo.screen import LineScreen, LiveScreen, SilentScreen
from holdfast_server.errors import StoreFault
from holdfast_server.stores.redis.embedded import EmbeddedStartFailed

AGENTS_MAX = 5_000
SECONDS_MAX = 3_600.0
COUNTS = (
    ("customers served", "sessions"),
    ("waited as advised", "waited"),
    ("took something else as advised", "redirected"),
    ("took something else after a refusal", "tried_another"),
    ("refusals, sold out", "refusals"),
    ("holds", "holds"),
    ("payments failed", "payment_failed"),
    ("changes of mind", "changed_mind"),
    ("agents died with a hold", "died"),
    ("paid after the expiry", "paid_late"),
    ("units given back", "units_back"),
    ("units sold", "units_sold"),
    ("orders", "orders"),
    ("errors", "errors"),
)


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, SECONDS_MAX),
    default=Race.seconds,
    show_default=True,
    help="How long agents take new customers, in the first race.",
)
@click.option(
    "--agents",
    type=click.IntRange(1, AGENTS_MAX),
    default=Race.agents,
    show_default=True,
    help="Agents at once.",
)
@click.option("--seed", type=int, default=Race.seed, show_default=True, help="Of the dice.")
@click.option(
    "--pacing",
    type=click.Choice(list(PACINGS)),
    default=Race.pacing,
    show_default=True,
    help="Whether agents heed the server's advice; both: first not, then the same race again.",
)
@json_option
def demo_command(as_json: bool, **options: Any) -> None:
    """Let hundreds of agents race for a catalogue, and check every promise.

    Twice: first the agents ignore the server's advice, then agents that heed it serve the same
    customers. Each race has a server of its own on a private Valkey in a temporary directory, and
    leaves nothing behind. Exit status 0 means that every promise was kept.
    """
    logs.configure(level="warning", style="auto")
    output, console = Output(as_json), Console(highlight=False)
    screen = LiveScreen(console) if console.is_terminal else LineScreen(console)
    race = Race(**options)
    try:
        results = uvloop.run(run(race, SilentScreen() if as_json else screen))
    except (EmbeddedStartFailed, StoreFault, HoldfastError, OSError) as error:
        raise Failure(str(error), as_json=as_json) from error
    if as_json:
        output.document(_document(race, results))
    else:
        _report(output, results)
    if not all(result.holds for result in results):
        raise click.exceptions.Exit(1)


def _document(race: Race, results: Sequence[Result]) -> dict[str, Any]:
    return {
        "seconds": race.seconds,
        "agents": race.agents,
        "seed": race.seed,
        "holds": all(result.holds for result in results),
        "races": {result.pacing: _facts(result) for result in results},
    }


def _facts(result: Result) -> dict[str, Any]:
    tally = result.tally
    p50, p99 = tally.percentiles_ms()
    return {
        "shopping_seconds": round(result.shopping_s, 1),
        "counts": dict(tally.counts),
        "refusals_per_100_orders": round(tally.refusals_per_100_orders, 1),
        "operations": len(tally.seconds),
        "operations_per_second": round(len(tally.seconds) / result.shopping_s),
        "latency_ms": {"p50": round(p50, 2), "p99": round(p99, 2)},
        "holds": result.holds,
        "checks": result.verdicts,
    }


def _report(output: Output, results: Sequence[Result]) -> None:
    columns = [f"#pacing {result.pacing}" for result in results]
    output.say("")
    output.table(("what happened", *columns), _rows([_facts(result) for result in results]))
    output.say("")
    output.table(
        ("check, and how much it looked at", *columns),
        [
            (same[0].name, *(f"{_word(one.holds)}, {one.looked_at}" for one in same))
            for same in zip(*(result.verdicts for result in results), strict=True)
        ],
    )
    for result in results:
        for verdict in result.verdicts:
            for violation in verdict.violations:
                output.say(f"pacing {result.pacing}: {verdict.name}: {violation}")
    output.say("")
    if len(results) > 1:
        output.say(_compared(*(result.tally.refusals_per_100_orders for result in results)))
    holds = all(result.holds for result in results)
    output.say("nothing was oversold" if holds else "A PROMISE WAS BROKEN")


def _rows(facts: Sequence[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    reasons = sorted({key for one in facts for key in one["counts"] if key.startswith("error_")})
    for name, key in (*COUNTS, *((reason, reason) for reason in reasons)):
        yield name, *(one["counts"].get(key, 0) for one in facts)
    for name, key in (
        ("refusals per 100 orders", "refusals_per_100_orders"),
        ("seconds of shopping", "shopping_seconds"),
        ("operations/s", "operations_per_second"),
    ):
        yield name, *(one[key] for one in facts)
    for name, key in (("latency ms, median", "p50"), ("latency ms, p99", "p99")):
        yield name, *(one["latency_ms"][key] for one in facts)


def _word(holds: bool) -> str:  # the word for it
    return "holds" if holds else "BROKEN"


def _compared(ignored: float, heeded: float) -> str:
    words = f"{heeded:.1f} refusals per 100 orders with pacing, {ignored:.1f} without"
    return words if heeded < ignored else f"PACING DID NOT HELP: {words}"
