"""`peers`: compare Holdfast with what else one could write; a command to mount in the CLI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from holdfast_bench.peers.driving import LOADS
from holdfast_bench.peers.run import Plan, Result, run
from holdfast_bench.peers.serving import NAMES
from holdfast_bench.peers.terms import PeerUnavailable

BROKEN = 99  # exit status: Holdfast itself has oversold
DEFAULT = tuple(name for name in NAMES if name != "unlocked")
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
    title = f"load {load}: {plan.rounds} rounds of {plan.seconds:g} s, medians (least..most)"
    made = Table(title=title, title_justify="left")
    made.add_column("server")
    for column in (
        "operations/s",
        "p50 ms",
        "p99 ms",
        "oversold units",
        "errors",
        "CPU s/1,000: server",
        "store",
    ):
        made.add_column(column, justify="right")
    for result in results:
        made.add_row(*_cells(result), style="bold red" if result.oversold else None)
    return made


def _cells(result: Result) -> tuple[str, ...]:
    figures = result.as_json()
    cpu = result.cpu_ms()
    return (
        result.name,
        f"{figures['operations_per_s']:,.0f} ({min(result.rates):,.0f}..{max(result.rates):,.0f})",
        f"{figures['p50_ms']:.1f}",
        f"{figures['p99_ms']:.1f}",
        "-" if result.oversold is None else f"{result.oversold:,}",
        f"{result.errors:,}",
        f"{cpu.server:.3f}",
        f"{cpu.store:.3f}",
    )


if __name__ == "__main__":
    peers_command(prog_name="python -m holdfast_bench.peers.command")
