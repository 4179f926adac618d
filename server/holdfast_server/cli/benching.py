"""`bench`: load a server as thousands of agents do, and judge what it did.

The harness is part of the bench extra, and is imported where a command runs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from holdfast_server.cli.terminal import BadSetting, Failure, Output, json_option

if TYPE_CHECKING:  # for type checkers only: the extra may not be installed
    from holdfast_bench.harness.scenario import Scenario

FOLDER = Path("bench-results")
THEIRS = {
    "compare": ("holdfast_bench.harness.compare_command", "compare_command"),
    "peers": ("holdfast_bench.peers.command", "peers_command"),
}
# Options that stand for one key of a scenario, or for several.
KEYS = {
    "connections": ("connections",),
    "transport": ("transport",),
    "processes": ("processes",),
    "sessions": ("sessions_max",),
    "rate": ("arrivals.rate",),
    "duration": ("phases.steady_s",),
    "seed": ("seed",),
}


class _Group(click.Group):
    """Commands of its own, and those that the harness brings."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*super().list_commands(ctx), *THEIRS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing the harness for one of its own."""
        if cmd_name not in THEIRS:
            return super().get_command(ctx, cmd_name)
        module, name = THEIRS[cmd_name]
        with _harness(as_json="--json" in sys.argv):
            command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_Group)
def bench_command() -> None:
    """Load a server as thousands of agents do, and judge what it did.

    Exit status: 0 done, 1 the run could not be made, 2 wrong usage, 99 a promise was broken or a
    threshold not met.
    """


@bench_command.command("scenarios")
@json_option
def scenarios_command(as_json: bool) -> None:
    """List the scenarios that come with the harness."""
    with _harness(as_json=as_json):
        from holdfast_bench.harness.scenario import load, shipped  # noqa: PLC0415

        output, found = Output(as_json), [load(name) for name in shipped()]
    if as_json:
        output.document([scenario.as_read() for scenario in found])
        return
    rows = [(scenario.name, scenario.description) for scenario in found]
    output.table(("scenario", "what happens"), rows)


@bench_command.command("run")
@click.argument("name", metavar="SCENARIO")
@click.option("--target", default="", metavar="HOST:PORT", help="The server to load.")
@click.option(
    "--embedded", is_flag=True, help="Load a server of its own, on a private store [default]."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Directory of the results.  [default: {FOLDER}/SCENARIO-TIME]",
)
@click.option("--connections", type=int, help="TCP connections of all processes.")
@click.option("--transport", help="coalesced, unary or pipeline.")
@click.option("--processes", type=int, help="Processes that generate the load.")
@click.option("--sessions", type=int, help="Agents alive at once.")
@click.option("--rate", type=float, help="Sessions that start a second.")
@click.option("--duration", type=float, help="Seconds that are measured.")
@click.option("--seed", type=int, help="Of every random choice.")
@click.option(
    "--set", "others", multiple=True, metavar="KEY=VALUE", help="Any key of the scenario."
)
@json_option
def run_command(
    name: str, target: str, embedded: bool, out: Path | None, as_json: bool, **given: Any
) -> None:
    """Run a scenario, by its name or the path of its TOML file.

    Writes result.json and what belongs to it to a directory.  Ctrl-C ends the run early, and
    what was measured until then is reported.
    """
    if target and embedded:
        raise click.UsageError("--target and --embedded exclude each other")
    output = Output(as_json)
    with _harness(as_json=as_json):
        from holdfast_bench.harness import live, running  # noqa: PLC0415

        if target:
            _check_address(target)
        scenario = _scenario(name, given)
        folder = out or FOLDER / f"{scenario.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        order = running.Order(scenario, folder, target, ("holdfast", *sys.argv[1:]))
        console = Console(highlight=False)
        shown = live.LiveScreen(console) if console.is_terminal else live.LineScreen(console)
        screen = live.SilentScreen() if as_json else shown
        # Not on uvloop, which starts processes by a fork that gRPC would have a say in.
        result = asyncio.run(running.run(order, screen))
    _report(output, result, folder)
    if result["exit_code"]:
        raise click.exceptions.Exit(result["exit_code"])


@contextmanager
def _harness(*, as_json: bool) -> Iterator[None]:
    """Turn what keeps the harness from running into exit statuses."""
    try:
        from holdfast_bench.harness.artifacts import ResultsUnwritable  # noqa: PLC0415
        from holdfast_bench.harness.faults import HarnessFault  # noqa: PLC0415
        from holdfast_bench.harness.settings import ScenarioError  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        words = f"{missing.name} is not installed: `holdfast bench` needs the bench extra\n"
        raise Failure(f"{words}  pip install 'holdfast[bench]'", as_json=as_json) from missing
    try:
        yield
    except ScenarioError as error:
        raise BadSetting(str(error), reason="bad scenario", as_json=as_json) from error
    except (HarnessFault, ResultsUnwritable, OSError) as error:
        raise Failure(str(error), as_json=as_json) from error


def _scenario(name: str, given: dict[str, Any]) -> Scenario:
    from holdfast_bench.harness.scenario import load  # noqa: PLC0415

    overrides: dict[str, Any] = {}
    for other in given["others"]:
        key, separator, value = other.partition("=")
        if not separator:
            raise click.UsageError(f"--set takes KEY=VALUE, not {other!r}")
        overrides[key] = value
    for option, keys in KEYS.items():
        if given[option] is not None:
            overrides |= dict.fromkeys(keys, given[option])
    sessions = given["sessions"]
    if sessions is not None and load(name).arrivals.sessions:
        overrides.setdefault("arrivals.sessions", sessions)
    return load(name, overrides)


def _check_address(target: str) -> None:
    from holdfast_bench.harness.target import address  # noqa: PLC0415

    try:
        address(target)
    except ValueError as wrong:
        raise click.BadParameter(str(wrong), param_hint="--target") from wrong


def _report(output: Output, result: dict[str, Any], folder: Path) -> None:
    if output.as_json:
        output.document(result)
        return
    from holdfast_bench.harness.summary import lines, tables  # noqa: PLC0415

    for table in tables(result):
        output.say("")
        output.table(table.columns, table.rows)
    output.say("")
    for line in lines(result):
        output.say(line)
    output.say(f"results: {folder}")
