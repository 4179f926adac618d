"""A store whose ledger says what the test says, under a tail and a hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from holdfast_server.model import Head, ItemRow, LedgerBatch, LedgerBreak, Position
from holdfast_server.watch.hub import Hub, HubLimits
from holdfast_server.watch.levels import Levels
from holdfast_server.watch.tail import Tail
from tests.unit.shelves import EPOCH, NOW_MS, encode_level, read_row


class ScriptedStore:
    """Items in pages, and news of the ledger as they are put in."""

    def __init__(self, *pages: list[ItemRow], sequence: int = 0) -> None:
        self.pages = list(pages) or [[]]
        self.end = Head(EPOCH, sequence, 1, NOW_MS)
        self.known = Position(EPOCH, sequence)
        self.followed: list[Position] = []
        self.is_open = asyncio.Event()  # pages after the first wait for it
        self.is_open.set()
        self.is_paging = asyncio.Event()
        self._news: asyncio.Queue[LedgerBatch | LedgerBreak | Exception] = asyncio.Queue()

    def say(self, *news: LedgerBatch | LedgerBreak | Exception) -> None:
        """Let the ledger say so, in this order."""
        for one in news:
            self._news.put_nowait(one)

    async def head(self) -> Head:
        return self.end

    async def rows(self) -> AsyncIterator[list[ItemRow]]:
        for page in self.pages:
            yield page
            self.is_paging.set()
            await self.is_open.wait()

    async def follow(self, after: Position) -> AsyncIterator[LedgerBatch | LedgerBreak]:
        self.followed.append(after)
        while True:
            news = await self._news.get()
            if isinstance(news, Exception):
                raise news
            yield news
            if isinstance(news, LedgerBreak):
                return


class Heard:
    """A reader of the tail that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[LedgerBatch | LedgerBreak] = []

    def on_batch(self, batch: LedgerBatch) -> None:
        self.told.append(batch)

    def on_break(self, kind: LedgerBreak) -> None:
        self.told.append(kind)


async def settled() -> None:
    """Let every task run until it waits for something that is not the loop itself."""
    for _ in range(50):
        await asyncio.sleep(0)


@asynccontextmanager
async def following(store: ScriptedStore, *, stale_s: float = 60.0) -> AsyncIterator[Tail]:
    tail = Tail(store, stale_s=stale_s)
    task = asyncio.create_task(tail.run())
    try:
        yield tail
    finally:
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def hub_of(
    store: ScriptedStore, limits: HubLimits | None = None, *, stale_s: float = 60.0
) -> AsyncIterator[Hub]:
    async with following(store, stale_s=stale_s) as tail:
        hub = Hub(store, tail, Levels(read_row, encode_level), answered=store, limits=limits)
        task = asyncio.create_task(hub.run())
        try:
            yield hub
        finally:
            task.cancel()
            await asyncio.wait({task})
