"""From the store's ledger into the archive, in order, by whoever leads.

It asks for what comes after its own position and not for news; so what it missed it still gets,
and a busy ledger is taken in larger and larger transactions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from holdfast_server.errors import StoreFault
from holdfast_server.ledger.archive import Archive, Archived
from holdfast_server.ledger.faults import ArchiveFault
from holdfast_server.model import Head

log = structlog.get_logger(__name__)

BATCHES_MAX = 64  # of a transaction: a few thousand entries
RETRY_S = (0.1, 2.0)
LOOK_S = 1.0
PAUSE_S = 0.02  # between transactions of a busy ledger that nobody waits for


class Source(Protocol):
    """What is archived: the stream entries of a cell's ledger."""

    async def head(self) -> Head:
        """Return the end of the ledger."""
        ...

    async def bodies(self, from_sequence: int, *, count: int) -> list[bytes]:
        """Return the batch that holds a sequence and those after it, as they are stored."""
        ...


class Keeper(Protocol):
    """Who is told what is archived, and drops it then."""

    async def note_archived(self, token: int, epoch: int, sequence: int, *, keep: int) -> None:
        """Note how far the ledger is archived, and drop entries that need not be kept."""
        ...


class Tail(Protocol):
    """Who knows when the ledger has grown."""

    async def wait_beyond(self, sequence: int, timeout_s: float) -> None:
        """Wait until the ledger has gone on past a sequence, at most for so long."""
        ...


@dataclass
class Progress:
    """How far the ledger is archived, as this process knows, and who waits for it."""

    sequence: int = 0
    fault: str = ""
    transactions: int = 0
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)

    def reach(self, sequence: int) -> None:
        """Note that everything up to a sequence is archived.

        It may go back when the archive is another one.
        """
        if sequence != self.sequence:
            self.sequence = sequence
            self._moved.set()
            self._moved = asyncio.Event()

    async def wait(self, sequence: int, timeout_s: float) -> bool:
        """Wait until a sequence is archived, at most for so long; tell whether it is."""
        self._wanted.set()
        try:
            async with asyncio.timeout(timeout_s):
                while self.sequence < sequence:
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    async def wanted(self, timeout_s: float) -> None:
        """Wait until somebody waits, at most for so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._wanted.wait()
        except TimeoutError:
            pass
        self._wanted.clear()


class Archiver:
    """Moves the ledger into the archive.  `lead` is the work of a leader."""

    def __init__(
        self, source: Source, archive: Archive, keeper: Keeper, tail: Tail, *, keep: int
    ) -> None:
        self._source, self._archive, self._keeper, self._tail = source, archive, keeper, tail
        self._keep = keep
        self.progress = Progress()
        self.tell: Callable[[int], None] = lambda _sequence: None  # whoever reads on from here

    async def lead(self, token: int) -> None:
        """Archive until cancelled.

        Whatever fails is said once and tried again; nothing is skipped.  Raises Fenced when another
        one leads.
        """
        at = await self._archive.archived()
        await self._note(token, at)
        pause_s, is_first = RETRY_S[0], True
        while True:
            try:
                # The last one that is archived is looked at once more: it must be the same.
                at = await self._step(token, at, at.sequence if is_first else at.sequence + 1)
                is_first, pause_s = False, RETRY_S[0]
                self._heal()
            except (ArchiveFault, StoreFault) as fault:
                if type(fault).__name__ == "Fenced":
                    raise
                self._say(fault)
                await asyncio.sleep(pause_s)
                pause_s, is_first = min(pause_s * 2, RETRY_S[1]), True
                at = await self._again(at)

    async def _step(self, token: int, at: Archived, start: int) -> Archived:
        bodies = await self._source.bodies(max(start, 1), count=BATCHES_MAX)
        if bodies:
            now = await self._archive.apply(bodies)
            if now.sequence > at.sequence:
                self.progress.transactions += 1
                await self._note(token, now)
                if len(bodies) < BATCHES_MAX:
                    await self.progress.wanted(PAUSE_S)
                return now
        await self._rest(at)
        return at

    async def _rest(self, at: Archived) -> None:
        """Wait for the ledger to grow, or for somebody to wait for the archive."""
        waits = [
            asyncio.create_task(self._tail.wait_beyond(at.sequence, LOOK_S)),
            asyncio.create_task(self.progress.wanted(LOOK_S)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    async def _again(self, at: Archived) -> Archived:
        try:
            return await self._archive.archived()
        except StoreFault:
            return at

    async def _note(self, token: int, at: Archived) -> None:
        self.progress.reach(at.sequence)
        self.tell(at.sequence)
        if at.sequence:
            await self._keeper.note_archived(token, at.epoch, at.sequence, keep=self._keep)

    def _say(self, fault: Exception) -> None:
        if str(fault) != self.progress.fault:
            log.error("cannot archive", fault=str(fault), kind=type(fault).__name__)
        self.progress.fault = str(fault)

    def _heal(self) -> None:
        if self.progress.fault:
            log.info("archiving again", sequence=self.progress.sequence)
        self.progress.fault = ""
