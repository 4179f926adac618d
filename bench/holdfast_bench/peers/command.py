"""`peers`: compare Holdfast with what else one could write; a command to mount in the CLI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import click
from rich.console import Console
from rich.table import Table

from holdfast_bench.harness.faults import HarnessFault
from holdfast_bench.harness.scenario import Scenario
from holdfast_bench.harness.scenario_tables import RATE_MAX
from holdfast_bench.peers.results import Result
from holdfast_bench.peers.run import LOADS, ROUNDS, SECONDS, load_of, run
from holdfast_bench.peers.serving import NAMES
from holdfast_bench.peers.terms import PeerUnavailable

BROKEN = 99  # exit status: Holdfast itself has broken a promise
DEFAULT = tuple(name for name in NAMES if name != "unlocked")
COLUMNS = (
    *("server", "op/s", "least..most", "p50 ms", "p99 ms", "oversold", "errors"),
    *("CPU\nserver", "CPU\nstore", "valid"),
)
ROUNDS_MAX, SECONDS_MAX = 100, 600.0


@click.command()
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="One contestant, repeatable.")
@click.option("--load", type=click.Choice(LOADS), default="uniform", show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(0.0, RATE_MAX, min_open=True),
    help="Start so many sessions a second, whoever is done.  [default: 64 agents, each in a loop]",
)
@click.option("--rounds", type=click.IntRange(1, ROUNDS_MAX), default=ROUNDS, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, SECONDS_MAX),
    default=SECONDS,
    show_default=True,
    help="Of a turn, after its warm-up.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="For peers.json and the chart."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def peers_command(  # noqa: PLR0913  # each option of a command is a parameter
    *,
    only: tuple[str, ...],
    load: str,
    rate: float | None,
    rounds: int,
    seconds: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure Holdfast and its peers under one load, in turns.

    The peer `unlocked` sells without a lock and is measured only with --only. Exit status 99 means
    that Holdfast has broken a promise.
    """
    say = Console(stderr=True, highlight=False).print
    scenario = load_of(load, seconds, rate or 0.0)
    try:
        results = run(scenario, only or DEFAULT, out, rounds=rounds, tell=say)
    except (PeerUnavailable, HarnessFault) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps([result.as_json() for result in results]))
    else:
        Console(highlight=False).print(table(results, scenario))
    if any(result.is_broken for result in results if result.name == "holdfast"):
        raise click.exceptions.Exit(BROKEN)


def table(results: Sequence[Result], scenario: Scenario) -> Table:
    """Return the results as a table."""
    rounds, seconds = len(results[0].turns), scenario.phases.steady_s
    arrivals = scenario.arrivals
    how = f"{arrivals.rate:g} sessions/s" if arrivals.is_open else f"{arrivals.sessions} agents"
    made = Table(
        title=f"Load {scenario.name}, {how}: {rounds} rounds of {seconds:g} s each, medians.  p50, "
        "p99: service time.\nCPU: s for 1,000 operations.  valid: turns whose generator kept up.",
        title_justify="left",
        title_style="",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for column in COLUMNS:
        made.add_column(column, justify="left" if column == COLUMNS[0] else "right", no_wrap=True)
    for result in results:
        made.add_row(*_cells(result), style="bold red" if result.is_broken else None)
    return made


def _cells(result: Result) -> tuple[str, ...]:
    rates, cpu = result.rates, result.cpu_ms()
    p50, p99 = result.service_ms(50.0, 99.0)
    return (
        result.name,
        f"{median(rates):,.0f}",
        f"{min(rates):,.0f}..{max(rates):,.0f}",
        f"{p50:.1f}",
        f"{p99:.1f}",
        "-" if result.oversold is None else f"{result.oversold:,}",
        f"{result.errors:,}",
        f"{cpu.server:.3f}",
        f"{cpu.store:.3f}",
        f"{result.valid}/{len(result.turns)}",
    )


if __name__ == "__main__":
    peers_command(prog_name="python -m holdfast_bench.peers.command")
