"""The one reader of a cell's ledger in this process, for all who follow it.

It starts when somebody wants it, and then goes on: through lost connections from where it was, and
through a break of the ledger from its new end, which it says to every reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import structlog

from holdfast_server.errors import StoreFault
from holdfast_server.model import Head, LedgerBatch, LedgerBreak, Position

log = structlog.get_logger(__name__)

RETRY_S = 0.1
# The store is asked every second whether anything happened; one that says nothing for so long is
# out of reach, and what is known of it is old.
STALE_S = 5.0


class Source(Protocol):
    """What the tail needs of a store."""

    async def head(self) -> Head:
        """Return the end of the ledger."""
        ...

    def follow(self, after: Position) -> AsyncIterator[LedgerBatch | LedgerBreak]:
        """Yield what happens after a position; ends with a break."""
        ...


class TailReader(Protocol):
    """Who reads along.  Both are called between two awaits, so they must be quick."""

    def on_batch(self, batch: LedgerBatch) -> None:
        """Take what one batch did; one without entries is a sign of life."""
        ...

    def on_break(self, kind: LedgerBreak) -> None:
        """Learn that what comes next does not follow on what came before."""
        ...


class Tail:
    """Reads the ledger for its readers.  Run it as a task; `want` makes it begin."""

    def __init__(self, source: Source, *, stale_s: float = STALE_S) -> None:
        self._source = source
        self._stale_s = stale_s
        self._readers: list[TailReader] = []
        self._wanted = asyncio.Event()
        self._moved = asyncio.Event()
        self._heard_at = 0.0
        self._now_ms = 0
        self.position = Position(0, 0)
        self.begun = asyncio.Event()

    @property
    def silence_s(self) -> float:
        """Return how long ago the store last said where its ledger stands."""
        return asyncio.get_running_loop().time() - self._heard_at

    @property
    def is_current(self) -> bool:
        """Tell whether the position is that of the ledger, up to a moment ago."""
        return self._heard_at > 0 and self.silence_s < self._stale_s

    @property
    def now_ms(self) -> int:
        """Return the time by the store's clock."""
        return self._now_ms + int(self.silence_s * 1000)

    def add(self, reader: TailReader) -> None:
        """Let a reader read along, and begin if nobody did before."""
        self._readers.append(reader)
        self.want()

    def want(self) -> None:
        """Begin to read, if that has not happened yet."""
        self._wanted.set()

    async def wait_beyond(self, sequence: int, timeout_s: float) -> None:
        """Wait until the ledger has gone on past a sequence, at most for so long."""
        self.want()
        try:
            async with asyncio.timeout(timeout_s):
                while self.position.sequence <= sequence:
                    await self._moved.wait()
        except TimeoutError:
            pass

    async def run(self) -> None:
        """Read until cancelled."""
        await self._wanted.wait()
        is_failing = False
        while True:
            try:
                await self._begin()
                async for news in self._source.follow(self.position):
                    is_failing = False
                    if isinstance(news, LedgerBreak):
                        self._break(news)
                    else:
                        self._take(news)
            except StoreFault as fault:
                if not is_failing:
                    log.warning("cannot follow the ledger", fault=str(fault))
                is_failing = True
            await asyncio.sleep(RETRY_S)

    async def _begin(self) -> None:
        """Start at the end of the ledger, the first time and after a break."""
        if self.position.epoch:
            return
        head = await self._source.head()
        self.position = Position(head.epoch, head.sequence)
        self._hear(head.now_ms)
        self.begun.set()

    def _take(self, batch: LedgerBatch) -> None:
        self._hear(batch.now_ms)
        self.position = Position(batch.epoch, batch.last)
        for reader in self._readers:
            reader.on_batch(batch)
        if batch.first <= batch.last:
            self._moved.set()
            self._moved = asyncio.Event()

    def _hear(self, now_ms: int) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        self._now_ms = now_ms

    def _break(self, kind: LedgerBreak) -> None:
        log.warning("the ledger breaks off", kind=kind.name, known=self.position)
        self.position = Position(0, 0)
        self.begun.clear()
        for reader in self._readers:
            reader.on_break(kind)
