"""The audit trail of this process: records on their way from the answers to the store.

An answer leaves only a reference here, and goes; records are made from them later, in slices, and
reach the store together, in numbered groups that may be sent again.  From there the archiver takes
them.  A crash loses what had not reached the store: a tenth of a second of queries, or whatever had
waited here while the store was away.  What was decided is in the ledger, and loses nothing.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from holdfast_server.errors import StoreFault
from holdfast_server.kernel.source import library
from holdfast_server.ledger.audit import AuditKind, AuditRecord, records_of
from holdfast_server.model import Context, GetStock, Operation, Outcome, Position, weight

log = structlog.get_logger(__name__)

FLUSH_S = 0.1
SLICE = 64  # notes made into records before others may run: 0.3 ms
GROUP_BYTES = 1 << 18  # about: all parts of a record are in one group
RETRY_S = 0.5


class Sink(Protocol):
    """Where records go: in order, kept until they are archived."""

    async def add_queries(self, server: str, number: int, records: Sequence[bytes]) -> int:
        """Add a group of records; return how many groups wait to be archived.

        A group is added once, however often it is sent under its number.
        """
        ...


class History(Protocol):
    """Where the ledger stands, as this process knows."""

    @property
    def known(self) -> Position:
        """Return the newest position that was answered."""
        ...


@dataclass(frozen=True)
class TrailLimits:
    """Bounds: notes that wait here, and groups of records that wait in the store.

    A query counts as its SKUs.  What is no query has more room, so that agents who ask a lot do not
    keep others from selling.
    """

    records_max: int = 50_000
    groups_max: int = 4_096

    @property
    def decisions_max(self) -> int:
        """Return the notes from which on nothing is taken any more."""
        return self.records_max + (self.records_max + 3) // 4


@dataclass
class TrailCounters:
    """What has become of the records of this process."""

    noted: int = 0
    kept: int = 0
    dropped: int = 0
    failures: int = 0


_Noted = tuple[Operation, Outcome, str, Position]


class Trail:
    """Takes notes of answers.  Run it as a task; `aclose` brings the rest to the store."""

    def __init__(
        self, sink: Sink, history: History, *, cell: int, limits: TrailLimits | None = None
    ) -> None:
        self._sink, self._history, self._cell = sink, history, cell
        self._limits = limits or TrailLimits()
        self._noted: deque[_Noted | AuditRecord] = deque()
        self._weight = 0  # of all that are noted and not yet with the store
        self._packed: list[bytes] = []
        self._packed_weight = self._groups = 0
        self._room = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._is_behind = False  # more waits in the store than may
        self._server = f"{_now_ms():x}-{secrets.token_hex(3)}"
        self._prefix = f"q{self._server}-"
        self._number = self._untold = 0
        self.counters = TrailCounters()

    # ---- Taking notes ----

    @property
    def is_full(self) -> bool:
        """Tell whether a note of whatever is no query would be dropped."""
        return self._is_behind or self._weight >= self._limits.decisions_max

    @property
    def is_full_of_queries(self) -> bool:
        """Tell whether a note of a query would be dropped."""
        return self._is_behind or self._weight >= self._limits.records_max

    def query_id(self) -> str:
        """Return an id that no other query has; those of a process sort by age."""
        self._number += 1
        return f"{self._prefix}{self._number:08x}"

    def watch_id(self) -> str:
        """Return an id that no other watch has, and no query."""
        return self.query_id().replace("q", "w", 1)

    def note(self, operation: Operation, outcome: Outcome) -> str:
        """Note an operation that made no entry; return the note's id, empty if dropped."""
        is_query = type(operation) is GetStock
        is_full = self.is_full_of_queries if is_query else self.is_full
        name = "" if is_full else self.query_id()
        self._note((operation, outcome, name, self._history.known), weight(operation), is_full)
        return name

    def note_record(self, record: AuditRecord) -> None:
        """Note what is no operation: the start and the end of a watch."""
        self._note(record, 1, self.is_full)

    def note_configuration(self, settings: dict[str, Any]) -> None:
        """Note the settings that a server begins with, and the version of its rules."""
        shown = {name: str(value) for name, value in settings.items()}
        self._own(AuditKind.CONFIGURATION, shown, library().plain)

    def _own(self, kind: AuditKind, asked: Any, answered: Any) -> None:
        """Note what the server says by itself, at its own time."""
        what = (kind, _now_ms(), self.query_id(), 0, "", Context())
        self._noted.append(AuditRecord(*what, *self._history.known, asked, answered))
        self._weight += 1

    def _note(self, noted: _Noted | AuditRecord, size: int, is_full: bool) -> None:
        if is_full:
            self.counters.dropped += 1
            self._untold += 1
            return
        if self._untold:
            self._tell_dropped()
        self.counters.noted += 1
        self._noted.append(noted)
        self._weight += size

    def _tell_dropped(self) -> None:
        """Let the trail itself say what it lacks, in the place where it lacks it."""
        untold, self._untold = self._untold, 0
        self._own(AuditKind.DROPPED, None, untold)

    async def room(self, timeout_s: float, *, for_query: bool) -> bool:
        """Wait until a note would be taken, at most for so long; tell whether it would."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.is_full_of_queries if for_query else self.is_full:
                    await self._room.wait()
        except TimeoutError:
            return False
        return True

    # ---- Bringing them to the store ----

    async def run(self) -> None:
        """Bring notes to the store until cancelled."""
        is_failing = False
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self.flush()
            except StoreFault as fault:
                if not is_failing:
                    log.warning("the audit trail cannot be kept", fault=str(fault))
                self.counters.failures += 1
                is_failing = True
                await asyncio.sleep(RETRY_S)
            else:
                if is_failing:
                    log.info("the audit trail is kept again")
                is_failing = False

    async def aclose(self) -> None:
        """Bring the rest to the store, if it can be reached, however much waits there."""
        try:
            while self._noted or self._packed or self._untold:
                await self.flush()
        except StoreFault as fault:
            left = len(self._noted) + len(self._packed)
            log.error("audit records lost", at_least=left, fault=str(fault))

    async def flush(self) -> None:
        """Bring what is noted by now to the store, unless too much waits there.

        Raises StoreUnavailable.
        """
        async with self._flushing:
            await self._flush()

    async def _flush(self) -> None:
        while self._noted or self._packed or self._untold or self._is_behind:
            if not self._packed:
                await self._pack()
            waiting = await self._sink.add_queries(self._server, self._groups, self._packed)
            self.counters.kept += len(self._packed)
            self._weight -= self._packed_weight
            self._packed, self._packed_weight = [], 0
            self._is_behind = waiting > self._limits.groups_max
            self._room.set()
            self._room = asyncio.Event()
            if self._is_behind:
                return

    async def _pack(self) -> None:
        """Make the next group."""
        if self._untold and not self._noted:
            self._tell_dropped()
        self._groups += 1
        size = 0
        while self._noted and size < GROUP_BYTES:
            for _ in range(min(SLICE, len(self._noted))):
                noted = self._noted.popleft()
                if isinstance(noted, AuditRecord):
                    leaves = noted.leaves(self._cell)
                    self._packed_weight += 1
                else:
                    records = records_of(*noted)
                    leaves = [leaf for record in records for leaf in record.leaves(self._cell)]
                    self._packed_weight += weight(noted[0])
                self._packed += leaves
                size += sum(map(len, leaves))
                if size >= GROUP_BYTES:
                    break
            await asyncio.sleep(0)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
