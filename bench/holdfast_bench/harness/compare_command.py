"""`bench compare`: two versions by their repeated runs; the exit status follows the verdict."""

from __future__ import annotations

import json
import re
from math import isfinite
from pathlib import Path
from statistics import median

import click
from rich.console import Console

from holdfast_bench.harness.compare import SEED, Comparison, Difference, compare, runs_in
from holdfast_bench.harness.compare_table import notes, show, write_overlay
from holdfast_bench.harness.report import UnreadableRun

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
WIDTH_UNBOUND = 400  # of a table that goes to a file or a pipe


class _Share(click.ParamType[float]):
    """A percentage, or a share of one: 10%, 0.1."""

    name = "share"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the share."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", str(value).strip())
        if not found:
            self.fail(f"{value!r} is no percentage, such as 10%, nor a share, such as 0.1")
        return float(found[1]) / (100 if found[2] else 1)


@click.command(name="compare")
@click.argument("a", type=FOLDER)
@click.argument("b", type=FOLDER)
@click.option(
    "--fail-over",
    type=_Share(),
    help="Exit with 99 when a figure is significantly worse by more than this, such as 10%.",
)
@click.option("--rpc", default="", help="Compare this RPC instead of all calls.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page that lays the runs over one another.",
)
@click.option("--seed", type=int, default=SEED, show_default=True, help="Of the bootstrap.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare_command(  # noqa: PLR0913, PLR0917  # each option of a command is a parameter
    a: Path, b: Path, fail_over: float | None, rpc: str, out: Path | None, seed: int, as_json: bool
) -> None:
    """Compare the runs in A, before, with those in B, after.

    A and B are directories of runs: four or more each, of the same scenario on the same machine,
    best made in turns.  A figure is better or worse when a Mann-Whitney U test says so at 0.05 and
    the interval of the medians' difference does not reach 0.  Several figures are tested at once:
    one verdict in twenty is chance.

    Exit status 99 when a server broke a promise, or with --fail-over when something got worse.
    """
    try:
        found = compare(runs_in(a), runs_in(b), fail_over, rpc=rpc, seed=seed)
        if out is not None:
            write_overlay(found, (a.name, b.name), out)
    except (UnreadableRun, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(document(found), ensure_ascii=False))
    else:
        console = Console(highlight=False)
        show(found, console if console.is_terminal else Console(width=WIDTH_UNBOUND))
    if found.exit_code:
        raise click.exceptions.Exit(found.exit_code)


def document(found: Comparison) -> dict[str, object]:
    """Return a comparison as JSON has it."""
    return {
        "runs": {"a": len(found.a), "b": len(found.b)},
        "figures": [_figure(one) for one in found.differences if one.a and one.b],
        "failures": [one.yardstick.name for one in found.failures],
        "notes": notes(found),
        "exit_code": found.exit_code,
    }


def _figure(one: Difference) -> dict[str, object]:
    change = one.change
    return {
        "name": one.yardstick.name,
        "unit": one.yardstick.unit,
        "a": {"median": median(one.a), "values": list(one.a)},
        "b": {"median": median(one.b), "values": list(one.b)},
        "change": change if change is not None and isfinite(change) else None,
        "p": one.p,
        "interval": [one.low, one.high] if isfinite(one.low) else None,
        "verdict": str(one.verdict),
    }
