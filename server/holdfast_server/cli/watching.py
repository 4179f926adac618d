"""`watch`: levels as they change; a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Protocol

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from holdfast import (
    AsyncWatch,
    Change,
    Lagging,
    LevelView,
    Resumed,
    Resynced,
    StockChanges,
    StockLevel,
)
from holdfast_server.cli.client import SECONDS, Call, calls_server
from holdfast_server.cli.terminal import Output, clock
from holdfast_server.colours import STYLES

REFRESH_S = 0.25
URGENCY = {pressure: number for number, pressure in enumerate(STYLES)}
COLUMNS = ("sku", "#available", "#held", "#committed", "pressure", "advice", "#revision", "#age")


def _until_interrupted(command: Callable[..., None]) -> Callable[..., None]:
    """Check what is to be watched, and end without a word on Ctrl-C."""

    @wraps(command)
    def checked(*args: Any, skus: tuple[str, ...], watch_all: bool, **options: Any) -> None:
        if watch_all == bool(skus):
            raise click.UsageError("name the SKUs to watch, or give --all instead")
        try:
            command(*args, skus=skus, **options)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(0) from None

    return checked


@click.command()
@click.argument("skus", metavar="[SKU]...", nargs=-1)
@click.option("--all", "watch_all", is_flag=True, help="Watch all items.")
@click.option(
    "--resume", "resume_token", default="", metavar="TOKEN", help="Go on where an earlier one was."
)
@click.option(
    "--min-interval", type=SECONDS, help="Shortest time between two changes, such as 500ms."
)
@click.option(
    "--on-gap",
    type=click.Choice(["RESYNC", "FAIL"], case_sensitive=False),
    default="RESYNC",
    show_default=True,
    help="If the token is too old: start anew, or fail.",
)
@click.option("--limit", type=click.IntRange(min=1), help="End after so many messages.")
@_until_interrupted
@calls_server
async def watch_command(
    call: Call, /, skus: tuple[str, ...], limit: int | None, **options: Any
) -> None:
    """Follow the levels of some SKUs as they change, until Ctrl-C.

    With --json it prints a line for each level and each marker, then one of kind "through", whose
    resume_token is where to go on after all lines above it.
    """
    watch = call.client.watch(skus, **options)
    async with watch, _screen(call.output, call.client.levels) as screen:
        messages = 0
        async for change in watch:
            screen.show(change, watch)
            messages += isinstance(change, StockChanges)
            if messages == limit:
                return


class Screen(Protocol):
    """Whatever shows changes."""

    def show(self, change: Change, watch: AsyncWatch) -> None:
        """Show one change."""
        ...


@asynccontextmanager
async def _screen(output: Output, levels: LevelView) -> AsyncIterator[Screen]:
    console = Console(highlight=False)
    if output.as_json:
        yield JsonScreen(output)
    elif not console.is_terminal:
        yield LineScreen(output)
    else:
        with Live(console=console, auto_refresh=False) as live:
            screen = TableScreen(live, levels)
            ticking = asyncio.create_task(screen.tick(), name="holdfast-screen")
            try:
                yield screen
            finally:
                ticking.cancel()
                await asyncio.wait({ticking})
                screen.refresh()


class JsonScreen:
    """Prints JSON, one document a line."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, change: Change, watch: AsyncWatch) -> None:
        """Print the levels of a message and how far it reaches, or a marker."""
        if not isinstance(change, StockChanges):
            self._print(type(change).__name__.lower(), **change._asdict())
            return
        for level in change.levels:
            self._print("level", **level._asdict())
        facts = change._asdict()
        del facts["levels"]
        self._print("through", **facts, resume_token=watch.resume_token)

    def _print(self, kind: str, **facts: Any) -> None:
        self._output.document({"kind": kind, **facts})


class LineScreen:
    """Prints a line for each level and marker."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, change: Change, watch: AsyncWatch) -> None:
        """Print a change."""
        now = clock(datetime.now(UTC))
        if not isinstance(change, StockChanges):
            self._output.say(f"{now}  -- {_words(change)}")
            return
        for level in change.levels:
            self._output.say(f"{now}  {_line(level)}")
        if change.is_snapshot and change.missing_skus:
            self._output.say(f"{now}  -- not there yet: {', '.join(change.missing_skus)}")


def _line(level: StockLevel) -> str:
    pause = f", wait {level.retry_after:g} s" if level.retry_after else ""
    return (
        f"{level.sku}  available {level.available}, held {level.held}, committed"
        f" {level.committed}  {level.pressure} {level.advice}{pause}  revision {level.revision}"
    )


def _words(mark: Lagging | Resumed | Resynced) -> str:
    if isinstance(mark, Lagging):
        return (
            f"cut off since {clock(mark.since)} ({mark.cause}: {mark.message}), attempt"
            f" {mark.attempt} to come"
        )
    if isinstance(mark, Resumed):
        return f"resumed, nothing was missed through {mark.through_sequence}"
    return f"told anew ({mark.reason}) through {mark.through_sequence}"


class TableScreen:
    """Keeps a table up to date on a terminal: the items under most pressure, as far as they fit."""

    def __init__(self, live: Live, levels: LevelView) -> None:
        self._live = live
        self._levels = levels
        self._watched: dict[str, StockLevel] = {}
        self._status = "connecting"

    def show(self, change: Change, watch: AsyncWatch) -> None:
        """Take a change; the table is drawn a few times a second."""
        if not isinstance(change, StockChanges):
            self._status = _words(change)
            return
        if change.is_snapshot:
            self._watched = {}
        self._watched.update(change.by_sku)
        self._status = f"through {change.through_sequence}"
        if change.missing_skus:
            self._status += f", not there yet: {', '.join(change.missing_skus)}"

    async def tick(self) -> None:
        """Draw until cancelled."""
        while True:
            self.refresh()
            await asyncio.sleep(REFRESH_S)

    def refresh(self) -> None:
        """Draw the table as it is now."""
        room = max(self._live.console.height - 4, 1)
        urgent = sorted(self._watched.values(), key=_urgency, reverse=True)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in COLUMNS:
            justify = "right" if column.startswith("#") else "left"
            table.add_column(column.lstrip("#"), no_wrap=True, justify=justify)  # type: ignore[arg-type]  # both are
        for level in urgent[:room]:
            table.add_row(*self._row(level))
        hidden = len(urgent) - room
        more = f"{hidden} more items, " if hidden > 0 else ""
        # On one line whatever it says, or the table would not fit any more.
        status = Text(f"{more}{self._status}", no_wrap=True, overflow="ellipsis")
        self._live.update(Group(table, status), refresh=True)

    def _row(self, level: StockLevel) -> tuple[Text, ...]:
        known = self._levels.known(level.sku)
        age = f"{known.age:.0f} s" if known else ""
        numbers = (level.available, level.held, level.committed)
        return (
            Text(level.sku),
            *(Text(str(number)) for number in numbers),
            Text(level.pressure, STYLES.get(level.pressure, "")),
            Text(level.advice),
            Text(str(level.revision)),
            Text(age),
        )


def _urgency(level: StockLevel) -> tuple[int, int]:
    return URGENCY.get(level.pressure, -1), level.revision
