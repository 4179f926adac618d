"""How a race looks while it runs: a live table on a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from holdfast import AsyncClient, ItemEntry
from holdfast_server.demo.race import Race
from holdfast_server.demo.tally import Tally

REFRESH_S = 0.5
LINE_S = 2.0
HOTTEST = 10


class SilentScreen:
    """Shows nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    async def follow(self, race: Race, tally: Tally, client: AsyncClient) -> None:
        """Show nothing."""


class LineScreen:
    """Prints a line every two seconds, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, text: str) -> None:
        """Print what comes next."""
        self._console.print(text, markup=False, soft_wrap=True)

    async def follow(self, race: Race, tally: Tally, client: AsyncClient) -> None:
        """Print how far the race is."""
        while True:
            await asyncio.sleep(LINE_S)
            facts = ", ".join(f"{value} {name}" for name, value in _facts(tally))
            self._console.print(f"{_elapsed(tally):5.1f} s  {facts}", markup=False, soft_wrap=True)


class LiveScreen(LineScreen):
    """Keeps a table up to date on a terminal."""

    async def follow(self, race: Race, tally: Tally, client: AsyncClient) -> None:
        """Show the counts, and the items that everybody wants."""
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                entries = [entry async for entry in client.list_items(page_size=1_000)]
                live.update(Group(_progress(race, tally), _hottest(entries)), refresh=True)
                await asyncio.sleep(REFRESH_S)


def _elapsed(tally: Tally) -> float:
    return time.perf_counter() - tally.started


def _facts(tally: Tally) -> list[tuple[str, str]]:
    counts, (p50, p99) = tally.counts, tally.percentiles_ms(recent=True)
    rate = len(tally.seconds) / max(_elapsed(tally), 0.001)
    return [
        ("sessions", f"{counts['sessions']}"),
        ("units sold", f"{counts['units_sold']}"),
        ("sold out", f"{counts['sold_out']}"),
        ("payments failed", f"{counts['payment_failed']}"),
        ("agents died", f"{counts['died']}"),
        ("units given back", f"{counts['units_back']}"),
        ("ops/s", f"{rate:.0f}"),
        ("ms p50", f"{p50:.1f}"),
        ("ms p99", f"{p99:.1f}"),
    ]


def _progress(race: Race, tally: Tally) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name, _value in _facts(tally):
        table.add_column(name, justify="right", style="bold")
    table.add_row(*(value for _name, value in _facts(tally)))
    left = max(race.seconds - _elapsed(tally), 0)
    table.title, table.title_justify = f"{race.agents} agents, {left:.0f} s left", "left"
    return table


def _hottest(entries: Sequence[ItemEntry]) -> Table:
    """Return the items that agents hold and of which least is left."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("sku", "title", "", "available", "held", "sold"):
        table.add_column(name, justify="left" if name in ("sku", "title", "") else "right")
    contested = sorted(entries, key=_contested, reverse=True)
    for entry in contested[:HOTTEST]:
        level = entry.level
        numbers = (level.available, level.held, level.committed)
        bar = _bar(level.committed, level.held, level.on_hand)
        table.add_row(level.sku, entry.item.title, bar, *map(str, numbers))
    return table


def _contested(entry: ItemEntry) -> tuple[bool, float, int]:
    level = entry.level
    share = (level.held + level.committed) / max(level.on_hand, 1)
    return level.held > 0, share, level.on_hand


def _bar(committed: int, held: int, on_hand: int, *, width: int = 20) -> Text:
    sold = width * committed // max(on_hand, 1)
    claimed = width * (committed + held) // max(on_hand, 1)
    parts = (("█" * sold, "green"), ("▒" * (claimed - sold), "yellow"))
    return Text.assemble(*parts, ("░" * (width - claimed), "dim"))
