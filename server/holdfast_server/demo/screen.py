"""How a race looks while it runs: a live table on a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from holdfast import AsyncClient, Pressure, StockLevel
from holdfast_server.colours import STYLES
from holdfast_server.demo.race import Heat
from holdfast_server.demo.tally import Tally

REFRESH_S = 0.25
LINE_S = 2.0
ROWS, ROWS_APART = 12, 10


class SilentScreen:
    """Shows nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    async def follow(self, heat: Heat, client: AsyncClient) -> None:
        """Show nothing."""


class LineScreen:
    """Prints a line every two seconds, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, text: str) -> None:
        """Print what comes next."""
        self._console.print(text, markup=False, soft_wrap=True)

    async def follow(self, heat: Heat, client: AsyncClient) -> None:
        """Print how far the race is."""
        while True:
            await asyncio.sleep(LINE_S)
            facts = ", ".join(f"{value} {name}" for name, value in _facts(heat))
            under = ", ".join(f"{number} {name}" for name, number in _pressures(client.levels))
            line = f"{_elapsed(heat.tally):5.1f} s  {facts}; items: {under}"
            self._console.print(line, markup=False, soft_wrap=True)


class LiveScreen(LineScreen):
    """Keeps a table up to date on a terminal."""

    async def follow(self, heat: Heat, client: AsyncClient) -> None:
        """Show the counts, how many items are under which pressure, and some of them."""
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                parts = (_progress(heat), _summary(client.levels), _some_items(heat, client.levels))
                live.update(Group(*parts), refresh=True)
                await asyncio.sleep(REFRESH_S)


def _elapsed(tally: Tally) -> float:
    return time.perf_counter() - tally.started


def _facts(heat: Heat) -> list[tuple[str, str]]:
    tally = heat.tally
    counts, (p50, p99) = tally.counts, tally.percentiles_ms(recent=True)
    heeded = ("waited", "redirected") if heat.is_paced else ()
    return [
        *((name, f"{counts[name]}") for name in ("sessions", "orders", "refusals")),
        ("per 100 orders", f"{tally.refusals_per_100_orders:.0f}"),
        *((name, f"{counts[name]}") for name in heeded),
        ("ms p50", f"{p50:.1f}"),
        ("ms p99", f"{p99:.1f}"),
    ]


def _pressures(levels: Mapping[str, StockLevel]) -> list[tuple[Pressure, int]]:
    """Return how many items are under which pressure, the lightest first."""
    counts = Counter(level.pressure for level in levels.values())
    return [(pressure, counts[pressure]) for pressure in STYLES]


def _progress(heat: Heat) -> Table:
    facts = _facts(heat)
    table = _columns(f"#{name}" for name, _value in facts)
    table.add_row(*(Text(value, "bold") for _name, value in facts))
    if heat.customers is None:
        left = f"{max(heat.race.seconds - _elapsed(heat.tally), 0):.0f} s left"
    else:
        left = f"{heat.customers - heat.tally.counts['sessions']} customers left"
    table.title, table.title_justify = Text(f"{heat.agents}, {left}"), "left"
    return table


def _summary(levels: Mapping[str, StockLevel]) -> Text:
    parts = ((f"{number} {name}   ", STYLES[name]) for name, number in _pressures(levels))
    return Text.assemble("\nitems: ", *parts, "\n")


def _some_items(heat: Heat, levels: Mapping[str, StockLevel]) -> Table:
    """Return items from the first that will be sold out to those that will not."""
    table = _columns(("item", "", "#left", "#held", "#sold", "pressure", "advice"))
    for item in heat.shop.items[: ROWS * ROWS_APART : ROWS_APART]:
        level = levels.get(item.sku)
        if level is not None:
            numbers = (level.available, level.held, level.committed)
            pause = f" {level.retry_after:g} s" if level.retry_after else ""
            table.add_row(
                Text(item.title or item.sku, no_wrap=True, overflow="ellipsis"),
                _bar(level),
                *map(str, numbers),
                Text(level.pressure, STYLES.get(level.pressure, "")),
                Text(f"{level.advice}{pause}"),
            )
    return table


def _columns(names: Iterable[str]) -> Table:
    """Return a table of columns; those whose name starts with # are numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in names:
        table.add_column(
            name.lstrip("#"),
            justify="right" if name.startswith("#") else "left",
            no_wrap=name != "item",  # the one that gives way on a narrow terminal
        )
    return table


def _bar(level: StockLevel, *, width: int = 10) -> Text:
    on_hand = max(level.on_hand, 1)
    sold = width * level.committed // on_hand
    claimed = width * (level.committed + level.held) // on_hand
    parts = (("█" * sold, "green"), ("▒" * (claimed - sold), "yellow"))
    return Text.assemble(*parts, ("░" * (width - claimed), "dim"))
