"""The audit trail of this process: records on their way from the answers to the store.

An answer leaves only a reference here, and goes; records are made from them later, in slices, and
reach the store together.  From there the archiver takes them.  A crash loses what had not reached
the store, a tenth of a second of queries; decisions are in the ledger, and lose nothing.
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
from holdfast_server.ledger.audit import AuditKind, AuditRecord, records_of
from holdfast_server.model import Context, Operation, Outcome, Position

log = structlog.get_logger(__name__)

FLUSH_S = 0.1
SLICE = 64  # records made before others may run
FLUSH_MAX = 1_000
RETRY_S = 0.5


class Sink(Protocol):
    """Where records go: in order, kept until they are archived."""

    async def add_queries(self, records: Sequence[bytes]) -> int:
        """Add records; return how many groups of them wait to be archived."""
        ...


class History(Protocol):
    """Where the ledger stands, as this process knows."""

    @property
    def known(self) -> Position:
        """Return the newest position that was answered."""
        ...


@dataclass(frozen=True)
class TrailLimits:
    """Bounds: records that wait here, and groups of them that wait in the store."""

    records_max: int = 50_000
    groups_max: int = 100_000


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
        self._packed: list[bytes] = []
        self._room = asyncio.Event()
        self._is_behind = False  # more waits in the store than may
        self._prefix = f"q{time.time_ns() // 1_000_000:x}-{secrets.token_hex(3)}-"
        self._number = self._untold = 0
        self.counters = TrailCounters()

    # ---- Taking notes ----

    @property
    def is_full(self) -> bool:
        """Tell whether a note would be dropped."""
        return self._is_behind or len(self._noted) >= self._limits.records_max

    def query_id(self) -> str:
        """Return an id that no other query has; those of a process sort by age."""
        self._number += 1
        return f"{self._prefix}{self._number:08x}"

    def note(self, operation: Operation, outcome: Outcome) -> str:
        """Note an operation that made no entry; return the id of it as a query."""
        name = self.query_id()
        self._note((operation, outcome, name, self._history.known))
        return name

    def note_watch(  # noqa: PLR0913  # a record's fields
        self, kind: AuditKind, *, name: str, principal: str, now_ms: int, asked: Any, answered: Any
    ) -> None:
        """Note that a watch told its first levels, or ended."""
        epoch, sequence = self._history.known
        no_context = Context()
        self._note(
            AuditRecord(
                kind, now_ms, name, 0, principal, no_context, epoch, sequence, asked, answered
            )
        )

    def note_configuration(self, settings: dict[str, Any]) -> None:
        """Note the settings that a server begins with."""
        self.note_watch(
            AuditKind.CONFIGURATION,
            name=self.query_id(),
            principal="",
            now_ms=_now_ms(),
            asked={name: str(value) for name, value in settings.items()},
            answered=None,
        )

    def _note(self, noted: _Noted | AuditRecord) -> None:
        if self.is_full:
            self.counters.dropped += 1
            self._untold += 1
            return
        self.counters.noted += 1
        self._noted.append(noted)

    async def room(self, timeout_s: float) -> bool:
        """Wait until a note would be taken, at most for so long; tell whether it would."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.is_full:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            return False
        return True

    # ---- Bringing them to the store ----

    async def run(self) -> None:
        """Bring notes to the store until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self._flush()
            except StoreFault as fault:
                if not self.counters.failures:
                    log.warning("the audit trail cannot be kept", fault=str(fault))
                self.counters.failures += 1
                await asyncio.sleep(RETRY_S)

    async def aclose(self) -> None:
        """Bring the rest to the store, if it can be reached."""
        try:
            await self._flush()
        except StoreFault as fault:
            left = len(self._noted) + len(self._packed)
            log.error("audit records lost", records=left, fault=str(fault))

    async def _flush(self) -> None:
        while self._noted or self._packed or self._untold or self._is_behind:
            self._tell_dropped()
            await self._pack()
            waiting = await self._sink.add_queries(self._packed)
            self.counters.kept += len(self._packed)
            self._packed = []
            self._is_behind = waiting > self._limits.groups_max
            if not self.is_full:
                self._room.set()
            if self._is_behind:
                return

    async def _pack(self) -> None:
        while self._noted and len(self._packed) < FLUSH_MAX:
            for _ in range(min(SLICE, len(self._noted))):
                noted = self._noted.popleft()
                records = [noted] if isinstance(noted, AuditRecord) else records_of(*noted)
                self._packed += [record.pack(self._cell) for record in records]
            await asyncio.sleep(0)

    def _tell_dropped(self) -> None:
        """Let the trail itself say what it lacks."""
        if self._untold and not self._is_behind:
            what = (AuditKind.DROPPED, _now_ms(), self.query_id(), 0, "", Context())
            gap = AuditRecord(*what, *self._history.known, None, self._untold)
            self._untold = 0
            self._noted.appendleft(gap)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
