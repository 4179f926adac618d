"""`demo`: hundreds of agents race for a real catalogue; the exit status follows the verdict."""

from __future__ import annotations

import click
import uvloop
from rich.console import Console

from holdfast import HoldfastError
from holdfast_server import logs
from holdfast_server.cli.ledger import show_verdicts
from holdfast_server.cli.terminal import Failure, Output, json_option
from holdfast_server.demo import Race, Result, run
from holdfast_server.demo.screen import LineScreen, LiveScreen, SilentScreen
from holdfast_server.errors import StoreFault
from holdfast_server.stores.redis.embedded import EmbeddedStartFailed

AGENTS_MAX = 5_000
SECONDS_MAX = 3_600.0
ROWS = (
    ("sessions", "sessions"),
    ("went away, all sold out", "went_away"),
    ("slowed down as advised", "slowed_down"),
    ("took another item as advised", "took_another"),
    ("refused, sold out", "sold_out"),
    ("holds", "holds"),
    ("orders", "orders"),
    ("payments failed", "payment_failed"),
    ("changes of mind", "changed_mind"),
    ("agents died with a hold", "died"),
    ("paid after the expiry", "paid_late"),
    ("units sold", "units_sold"),
    ("units given back", "units_back"),
    ("errors", "errors"),
)


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, SECONDS_MAX),
    default=Race.seconds,
    show_default=True,
    help="How long agents begin new sessions.",
)
@click.option(
    "--agents",
    type=click.IntRange(1, AGENTS_MAX),
    default=Race.agents,
    show_default=True,
    help="Agents at once.",
)
@click.option("--seed", type=int, default=Race.seed, show_default=True, help="Of the agents' dice.")
@json_option
def demo_command(seconds: float, agents: int, seed: int, as_json: bool) -> None:
    """Let hundreds of agents race for a catalogue, and check every promise.

    Serves on a private Valkey in a temporary directory and leaves nothing behind. Exit status 0
    means that every promise was kept.
    """
    logs.configure(level="warning", style="auto")
    output, console = Output(as_json), Console(highlight=False)
    screen = LiveScreen(console) if console.is_terminal else LineScreen(console)
    try:
        race = Race(seconds, agents, seed)
        result = uvloop.run(run(race, SilentScreen() if as_json else screen))
    except (EmbeddedStartFailed, StoreFault, HoldfastError, OSError) as error:
        raise Failure(str(error), as_json=as_json) from error
    _report(output, result)
    if not result.holds:
        raise click.exceptions.Exit(1)


def _report(output: Output, result: Result) -> None:
    tally = result.tally
    p50, p99 = tally.percentiles_ms()
    rate = len(tally.seconds) / result.shopping_s
    if output.as_json:
        output.document(
            {
                "seconds": result.race.seconds,
                "agents": result.race.agents,
                "seed": result.race.seed,
                "counts": dict(tally.counts),
                "operations": len(tally.seconds),
                "operations_per_second": round(rate, 1),
                "latency_ms": {"p50": round(p50, 2), "p99": round(p99, 2)},
                "holds": result.holds,
                "checks": result.verdicts,
            }
        )
        return
    rows = [(name, tally.counts[key]) for name, key in ROWS]
    rows += [(key, count) for key, count in tally.counts.items() if key.startswith("error_")]
    speed = f"{rate:.0f} operations/s, latency {p50:.1f} ms median, {p99:.1f} ms at p99"
    output.say("")
    output.table(("what happened", "#"), rows)
    output.say(f"\n{speed}\n")
    show_verdicts(output, result.verdicts)
    output.say("\nnothing was oversold" if result.holds else "\nA PROMISE WAS BROKEN")
