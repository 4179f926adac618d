"""The kernel in this process: the same Lua files as in Redis, over rows in plain tables.

Its steps are those of lua/redis/execute.lua: read, decide, write once.  `Tables` is all that
knows where rows are, so another keeper of rows can stand in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from struct import error as StructError
from time import time_ns
from typing import Any, NamedTuple

from holdfast_server.kernel.lua import LuaError, LuaHost, plain
from holdfast_server.kernel.records import decode_entries
from holdfast_server.kernel.wire import decode_batch, encode_batch
from holdfast_server.model import BatchResult, LedgerEntry, Operation

ENDED_BATCHES_MAX = 2


class KernelFault(Exception):
    """A batch that could not be decided: nothing was written."""


class Changes(NamedTuple):
    """What a batch leaves behind.  Rows, holds, expiry and fresh are keys and values by turns."""

    sequence: int
    rows: list[bytes]
    holds: list[bytes]
    expiry: list[Any]
    unexpiry: list[bytes]
    ended: list[bytes]
    fresh: list[bytes]
    events: list[Any]


def _pairs(flat: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


@dataclass
class Tables:
    """The rows of one cell, in dicts; keys and records are bytes as the kernel makes them."""

    epoch: int = 1
    sequence: int = 0
    clock_ms: int = 0
    items: dict[bytes, bytes] = field(default_factory=dict)
    holds: dict[bytes, bytes] = field(default_factory=dict)
    expiry: dict[bytes, int] = field(default_factory=dict)
    ended: list[tuple[int, list[bytes]]] = field(default_factory=list)
    fields: set[bytes] = field(default_factory=set)
    ledger: list[LedgerEntry] = field(default_factory=list)

    def due(self, now_ms: int, limit: int) -> list[bytes]:
        """Return the ids of holds that are due, the longest overdue first."""
        return self._soonest(((ms, id_) for id_, ms in self.expiry.items() if ms <= now_ms), limit)

    def soonest(self, now_ms: int, limit: int) -> list[bytes]:
        """Return the ids of the holds that expire next."""
        return self._soonest(((ms, id_) for id_, ms in self.expiry.items() if ms > now_ms), limit)

    def overdue(self, before_ms: int) -> list[bytes]:
        """Return the ids of what ended first, if that is long enough ago."""
        oldest = self.ended[:ENDED_BATCHES_MAX]
        return [id_ for ended_ms, ids in oldest if ended_ms <= before_ms for id_ in ids]

    def write(self, changes: Changes, now_ms: int) -> None:
        """Write what a batch changed."""
        first = self.sequence + 1
        body = [1, self.epoch, now_ms, first, changes.events, changes.rows]
        self.ledger += decode_entries(body)
        self.sequence, self.clock_ms = changes.sequence, now_ms
        self.items.update(_pairs(changes.rows))
        self.holds.update(_pairs(changes.holds))
        self.expiry.update((id_, ms) for ms, id_ in _pairs(changes.expiry))
        self.fields.update(changes.fresh[1::2])
        if changes.ended:
            self.ended.append((now_ms, changes.ended))

    def purge(self, ids: Iterable[bytes], before_ms: int) -> None:
        """Delete records, and what `overdue` was told of."""
        for id_ in ids:
            self.holds.pop(id_, None)
        oldest = self.ended[:ENDED_BATCHES_MAX]
        self.ended[:ENDED_BATCHES_MAX] = [batch for batch in oldest if batch[0] > before_ms]

    @staticmethod
    def _soonest(candidates: Iterable[tuple[int, bytes]], limit: int) -> list[bytes]:
        return [id_ for _ms, id_ in nsmallest(limit, candidates)]


def _found(rows: Mapping[bytes, bytes], keys: Iterable[bytes]) -> dict[bytes, bytes]:
    return {key: rows[key] for key in keys if key in rows}


class KernelInProcess:
    """Decides batches on tables of its own: what the Redis store does, with no server.

    Not for several threads: the Lua inside runs one batch at a time.
    """

    def __init__(
        self, tables: Tables | None = None, *, hold_budget: int = 0, retention_ms: int = 900_000
    ) -> None:
        self.tables = tables or Tables()
        self.hold_budget = hold_budget
        self.retention_ms = retention_ms
        self._lua = LuaHost()

    def execute(
        self,
        operations: Sequence[Operation],
        *,
        now_ms: int | None = None,
        known_sequence: int = 0,
    ) -> BatchResult:
        """Decide a batch.  No operations: only what is due is done.

        Atomic: raises KernelFault when the batch cannot be decided, or when the tables are behind
        what the caller knows, and then nothing was written.
        """
        if self.tables.sequence < known_sequence:
            raise KernelFault(f"ROLLBACK {self.tables.epoch} {self.tables.sequence}")
        flat = encode_batch(operations)
        return decode_batch(operations, self.decide(flat, len(operations), now_ms=now_ms))

    def decide(self, flat: Sequence[Any], count: int, *, now_ms: int | None = None) -> list[Any]:
        """Decide a batch in the kernel's own form: see `wire` for both directions."""
        wall_ms = time_ns() // 1_000_000 if now_ms is None else now_ms
        now = max(wall_ms, self.tables.clock_ms)
        batch = [value.encode() if isinstance(value, str) else value for value in flat]
        if not all(isinstance(value, bytes | int | float) or value is None for value in batch):
            raise KernelFault("a value of the batch is neither text nor number")
        try:
            return self._run(batch, self._lua.constant("sweep_base") + count, now)
        except (LuaError, StructError, ValueError) as error:  # by Lua, or by bytes it cannot read
            raise KernelFault(str(error)) from error

    def _run(self, flat: list[Any], due_max: int, now: int) -> list[Any]:
        tables, lua = self.tables, self._lua
        due = tables.due(now, due_max)
        more_due = len(due) == due_max
        ids = plain(lua.call("plan_holds", flat, due))
        before = now - self.retention_ms
        old = tables.overdue(before)
        records = _found(tables.holds, (*ids, *old))
        fields = plain(lua.call("plan_rows", self._input(now, more_due), records, flat, ids))
        outs, is_short = lua.call("decide", flat, due, _found(tables.items, fields))
        if is_short:
            soonest = tables.soonest(now, lua.constant("soonest_max"))
            lua.call("note_expiries", soonest, _found(tables.holds, soonest))
        changes = Changes(*map(plain, lua.call("changes")))
        if changes.sequence > tables.sequence:
            tables.write(changes, now)
        for id_ in changes.unexpiry:
            tables.expiry.pop(id_, None)
        tables.purge(plain(lua.call("past", old, before)), before)
        return [now, changes.sequence, more_due, plain(outs)]

    def _input(self, now: int, more_due: bool) -> dict[bytes, Any]:
        sequence, budget = self.tables.sequence, self.hold_budget
        return {b"now": now, b"sequence": sequence, b"budget": budget, b"more_due": more_due}
