"""From the store's ledger into the archive, in order, by whoever leads.

It asks for what comes after its own position and not for news; so what it missed it still gets,
and a busy ledger is taken in larger and larger transactions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import structlog

from holdfast_server.errors import Fenced, StoreFault
from holdfast_server.ledger.archive import Archive, Archived
from holdfast_server.ledger.faults import ArchiveConflict, ArchiveFault
from holdfast_server.model import Head, Position

log = structlog.get_logger(__name__)

ENTRIES_MAX = 4_096  # of a transaction: a tenth of a second
RETRY_S = (0.1, 2.0)
LOOK_S = 1.0
# A transaction costs about 4 ms of CPU and an fsync, however little is in it, and the server has
# better to do.  Whoever waits for the archive ends the pause.
PAUSE_S = 0.25


class Pace(NamedTuple):
    """How many archived entries the store keeps, and the pause between transactions, if any."""

    keep: int
    pause_s: float = PAUSE_S


class Source(Protocol):
    """What is archived: the stream entries of a cell's ledger."""

    async def head(self) -> Head:
        """Return the end of the ledger."""
        ...

    async def bodies(self, from_sequence: int, *, count: int, through: int = 0) -> list[bytes]:
        """Return the batch that holds a sequence and those after it, as they are stored.

        With `through`, only those that end by then.
        """
        ...

    async def wait_beyond(self, sequence: int, timeout_s: float) -> bool:
        """Wait until the ledger has gone on past a sequence, at most for so long; tell if so."""
        ...


class Keeper(Protocol):
    """Who is told what is archived, and drops it then."""

    async def note_archived(self, token: int, epoch: int, sequence: int, *, keep: int) -> None:
        """Note how far the ledger is archived, and drop entries that need not be kept."""
        ...


NOWHERE = Position(0, 0)


@dataclass
class Progress:
    """How far the ledger is archived, as this process knows, and who waits for it."""

    position: Position = NOWHERE
    fault: str = ""
    transactions: int = 0
    is_known: bool = False
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def sequence(self) -> int:
        """Return the last sequence that is archived."""
        return self.position.sequence

    def reach(self, position: Position) -> None:
        """Note that everything up to a position is archived; what is older news is nothing new."""
        self.is_known = True
        if position > self.position:
            self.position = position
            self._moved.set()
            self._moved = asyncio.Event()

    def behind(self, sequence: int) -> int:
        """Return how many entries up to a sequence are not archived, 0 while that is unknown."""
        return max(0, sequence - self.sequence) if self.is_known else 0

    async def wait(self, sequence: int, timeout_s: float, *, epoch: int = 0) -> bool:
        """Wait until a sequence is archived, at most for so long; tell whether it is.

        With an epoch it is that of this history: after a recovery another entry has its sequence.
        """
        self._wanted.set()
        try:
            async with asyncio.timeout(timeout_s):
                while not self._has(epoch, sequence):
                    if 0 < epoch < self.position.epoch:
                        return False
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def _has(self, epoch: int, sequence: int) -> bool:
        return epoch in {0, self.position.epoch} and self.position.sequence >= sequence

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

    def __init__(self, source: Source, archive: Archive, keeper: Keeper, pace: Pace) -> None:
        self._source, self._archive, self._keeper = source, archive, keeper
        self._keep, self._pause_s = pace
        self.progress = Progress()
        self.tell: Callable[[int], None] = lambda _sequence: None  # whoever reads on from here

    async def lead(self, token: int) -> None:
        """Archive until cancelled.

        Whatever fails is said once and tried again; nothing is skipped.  Raises Fenced when another
        one leads.
        """
        at: Archived | None = None
        pause_s = RETRY_S[0]
        while True:
            try:
                at = await (self._begin(token) if at is None else self._step(token, at))
                pause_s = RETRY_S[0]
                self._heal()
            except Fenced:
                raise
            except (ArchiveFault, StoreFault) as fault:
                self._say(fault)
                await asyncio.sleep(pause_s)
                pause_s, at = min(pause_s * 2, RETRY_S[1]), None

    async def _begin(self, token: int) -> Archived:
        """Go on where the archive ends; the store must have the same last entry there.

        Raises ArchiveGap, ArchiveConflict.
        """
        at, head = await self._archive.archived(), await self._source.head()
        if head.epoch < at.epoch or head.sequence < at.sequence:
            raise ArchiveConflict(
                f"the store went back to {head.epoch}/{head.sequence}, "
                f"archived is {at.epoch}/{at.sequence}"
            )
        if bodies := await self._source.bodies(max(at.sequence, 1), count=1):
            at = await self._archive.apply(bodies, at)
        progress = self.progress
        if not progress.is_known or progress.position != (head.epoch, at.sequence):
            await self._note(token, head.epoch, at.sequence)
        return at

    async def _step(self, token: int, at: Archived) -> Archived | None:
        """Archive what comes next; None after a while without anything: history may be another."""
        bodies = await self._news(at)
        if not bodies:
            return at if await self._source.wait_beyond(at.sequence, LOOK_S) else None
        now = await self._archive.apply(bodies, at)
        await self._note(token, now.epoch, now.sequence)
        if self._pause_s and now.sequence - at.sequence < ENTRIES_MAX // 2:
            await self.progress.wanted(self._pause_s)
        return now

    async def _news(self, at: Archived) -> list[bytes]:
        """Return the batches of the next transaction, or the one that is beyond a gap."""
        first, last = at.sequence + 1, at.sequence + ENTRIES_MAX
        bodies = await self._source.bodies(first, count=ENTRIES_MAX, through=last)
        return bodies or await self._source.bodies(first, count=1)

    async def _note(self, token: int, epoch: int, sequence: int) -> None:
        """Say what is archived: to the store first, which refuses it from who may not say so."""
        if sequence:
            await self._keeper.note_archived(token, epoch, sequence, keep=self._keep)
        if sequence != self.progress.sequence:
            self.progress.transactions += 1
        self.progress.reach(Position(epoch, sequence))
        self.tell(sequence)

    def _say(self, fault: Exception) -> None:
        if str(fault) != self.progress.fault:
            log.error("cannot archive", fault=str(fault), kind=type(fault).__name__)
        self.progress.fault = str(fault)

    def _heal(self) -> None:
        if self.progress.fault:
            log.info("archiving again", sequence=self.progress.sequence)
        self.progress.fault = ""
