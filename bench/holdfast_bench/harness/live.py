"""How a run looks while it goes: a table that is kept up to date, lines elsewhere, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

REFRESH_S = 0.5
LINE_S = 2.0


class Progress(NamedTuple):
    """Where a run is; rates, outcomes and times are of the last whole second."""

    phase: str
    elapsed_s: float
    left_s: float
    alive: int
    started: int
    finished: int
    dropped: int
    outcomes: Mapping[str, int]
    p50_ms: float
    p99_ms: float

    def facts(self) -> list[tuple[str, str]]:
        """Return names and values as they are shown."""
        refused = {name: count for name, count in self.outcomes.items() if name != "ok" and count}
        return [
            ("phase", self.phase),
            ("s", f"{self.elapsed_s:.0f}"),
            ("alive", f"{self.alive:,}"),
            ("starts/s", f"{self.started:,}"),
            ("ends/s", f"{self.finished:,}"),
            ("calls/s", f"{sum(self.outcomes.values()):,}"),
            ("ms p50", f"{self.p50_ms:.1f}"),
            ("ms p99", f"{self.p99_ms:.1f}"),
            *((name, f"{count:,}") for name, count in sorted(refused.items())),
            *((("dropped", f"{self.dropped:,}"),) if self.dropped else ()),
        ]


Look = Callable[[], Progress]


class Screen(Protocol):
    """Whatever shows how a run goes."""

    def note(self, text: str) -> None:
        """Say that something has happened."""
        ...

    async def follow(self, look: Look) -> None:
        """Show the run until cancelled."""
        ...


class SilentScreen:
    """Shows nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    async def follow(self, look: Look) -> None:
        """Show nothing."""


class LineScreen:
    """Prints a line every two seconds, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, text: str) -> None:
        """Print it."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    async def follow(self, look: Look) -> None:
        """Print how far the run is."""
        while True:
            await asyncio.sleep(LINE_S)
            self.note(", ".join(f"{name} {value}" for name, value in look().facts()))


class LiveScreen(LineScreen):
    """Keeps a table up to date on a terminal."""

    async def follow(self, look: Look) -> None:
        """Show the run."""
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(_table(look()), refresh=True)
                await asyncio.sleep(REFRESH_S)


def _table(progress: Progress) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    facts = progress.facts()
    for name, _value in facts:
        table.add_column(name, justify="right", style="bold")
    table.add_row(*(value for _name, value in facts))
    table.title = f"{progress.left_s:.0f} s of {progress.phase} left"
    table.title_justify = "left"
    return table
