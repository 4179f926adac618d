"""`peers`: compare Holdfast with what else one could write; a command to mount in the CLI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import click
from rich.console import Console
from rich.table import Table

from holdfast_bench.peers.driving import LOADS
from holdfast_bench.peers.run import Plan, Result, run
from holdfast_bench.peers.serving import NAMES
from holdfast_bench.peers.terms import PeerUnavailable

BROKEN = 99  # exit status: Holdfast itself has oversold
DEFAULT = tuple(name for name in NAMES if name != "unlocked")
COLUMNS = (
    *("server", "op/s", "least..most", "p50 ms", "p99 ms", "oversold", "errors"),
    *("CPU\nserver", "CPU\nstore"),
)
ROUNDS_MAX, SECONDS_MAX = 100, 600.0


@click.command()
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="One contestant, repeatable.")
@click.option("--load", type=click.Choice(tuple(LOADS)), default="uniform", show_default=True)
@click.option(
    "--rounds", type=click.IntRange(1, ROUNDS_MAX), default=Plan.rounds, show_default=True
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, SECONDS_MAX),
    default=Plan.seconds,
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
    rounds: int,
    seconds: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure Holdfast and its peers under one load, in turns.

    The peer `unlocked` sells without a lock and is measured only with --only. Exit status 99 means
    that Holdfast has oversold.
    """
    say = Console(stderr=True, highlight=False).print
    plan = Plan(rounds, seconds)
    try:
        results = run(LOADS[load], only or DEFAULT, out, plan=plan, tell=say)
    except PeerUnavailable as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps([result.as_json() for result in results]))
    else:
        Console(highlight=False).print(table(results, load, plan))
    if any(result.oversold for result in results if result.name == "holdfast"):
        raise click.exceptions.Exit(BROKEN)


def table(results: Sequence[Result], load: str, plan: Plan) -> Table:
    """Return the results as a table."""
    made = Table(
        title=f"Load {load}: {plan.rounds} rounds of {plan.seconds:g} s each, medians.  CPU: s for "
        "1,000 operations.",
        title_justify="left",
        title_style="",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for column in COLUMNS:
        made.add_column(column, justify="left" if column == COLUMNS[0] else "right", no_wrap=True)
    for result in results:
        made.add_row(*_cells(result), style="bold red" if result.oversold else None)
    return made


def _cells(result: Result) -> tuple[str, ...]:
    rates, cpu = result.rates, result.cpu_ms()
    return (
        result.name,
        f"{median(rates):,.0f}",
        f"{min(rates):,.0f}..{max(rates):,.0f}",
        f"{result.latency_ms(50):.1f}",
        f"{result.latency_ms(99):.1f}",
        "-" if result.oversold is None else f"{result.oversold:,}",
        f"{result.errors:,}",
        f"{cpu.server:.3f}",
        f"{cpu.store:.3f}",
    )


if __name__ == "__main__":
    peers_command(prog_name="python -m holdfast_bench.peers.command")
