"""The hosts of the decision kernel, driven alike: a script in a server, or Lua in this process.

A test owns the clock of a host: now = max(TIME, meta.clock) in the script, so it sets meta.clock
to a time to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, NamedTuple, Protocol, Self

import msgpack
from redis import Redis
from redis.exceptions import ResponseError

from holdfast_server.kernel.inprocess import KernelFault, KernelInProcess, Tables
from holdfast_server.kernel.records import decode_entries
from holdfast_server.kernel.source import script
from holdfast_server.kernel.wire import decode_batch, encode_batch
from holdfast_server.model import BatchResult, LedgerEntry, Operation
from holdfast_server.stores.redis.keys import CellKeys

REAL = Struct("<d")
START_MS = 4_000_000_000_000  # in the year 2096: later than any clock
RETENTION_MS = 900_000


class State(NamedTuple):
    """Everything a host has written, as bytes where it wrote bytes."""

    sequence: int
    items: dict[bytes, bytes]
    holds: dict[bytes, bytes]
    expiry: dict[bytes, int]
    ended: list[tuple[int, list[bytes]]]
    fields: set[bytes]
    ledger: list[LedgerEntry]


class Host(Protocol):
    """A place where the kernel runs."""

    hold_budget: int
    retention_ms: int

    def reset(self) -> None:
        """Forget everything."""

    def decide(self, flat: Sequence[Any], count: int, *, now_ms: int) -> Any:
        """Decide a batch in the kernel's own form; raises KernelFault."""

    def state(self) -> State:
        """Return everything written."""

    def digest(self) -> object:
        """Return something that differs when anything written differs."""

    def overwrite(self, table: str, key: bytes, record: bytes) -> None:
        """Damage a row of `items` or a record of `holds`."""

    def note_ended(self, ended_ms: int, id_: bytes) -> None:
        """Note an id for the purge, wherever it stands."""


def execute(host: Host, operations: Sequence[Operation], *, now_ms: int) -> BatchResult:
    """Decide a batch on a host."""
    flat = encode_batch(operations)
    return decode_batch(operations, host.decide(flat, len(operations), now_ms=now_ms))


class ScriptHost:
    """The script in Redis or Valkey."""

    def __init__(self, url: str) -> None:
        self.hold_budget, self.retention_ms = 0, RETENTION_MS
        self.client: Any = Redis.from_url(url)
        self.keys = CellKeys.of(0)
        self._script = self.client.register_script(script())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.client.close()

    def reset(self) -> None:
        self.hold_budget, self.retention_ms = 0, RETENTION_MS
        self.client.flushall()
        self.client.hset(self.keys.meta, mapping={"epoch": 1, "sequence": 0})

    def decide(
        self, flat: Sequence[Any], count: int, *, now_ms: int, known: tuple[int, int] = (1, 0)
    ) -> Any:
        self.client.hset(self.keys.meta, "clock", now_ms)
        terms = (self.hold_budget, self.retention_ms, count)
        try:
            answer = self._script(self.keys, (*known, *terms, msgpack.packb(list(flat))))
        except ResponseError as error:
            raise KernelFault(str(error)) from error
        return msgpack.unpackb(answer, raw=True)

    def state(self) -> State:
        client, keys = self.client, self.keys
        ledger: list[LedgerEntry] = []
        for _id, fields in client.xrange(keys.ledger):
            ledger += decode_entries(msgpack.unpackb(fields[b"e"], raw=True))
        return State(
            int(client.hget(keys.meta, "sequence") or 0),
            client.hgetall(keys.items),
            client.hgetall(keys.holds),
            {id_: int(ms) for id_, ms in client.zrange(keys.expiry, 0, -1, withscores=True)},
            [_ending(element) for element in client.lrange(keys.ended, 0, -1)],
            set(client.zrange(keys.skus, 0, -1)),
            ledger,
        )

    def digest(self) -> object:
        return {key: self.client.dump(key) for key in sorted(self.client.keys())}

    def overwrite(self, table: str, key: bytes, record: bytes) -> None:
        self.client.hset(getattr(self.keys, table), key, record)

    def note_ended(self, ended_ms: int, id_: bytes) -> None:
        element = REAL.pack(ended_ms) + msgpack.packb([id_], use_bin_type=False)
        self.client.lpush(self.keys.ended, element)
        self.client.hset(self.keys.meta, "last_late", ended_ms)


def _ending(element: bytes) -> tuple[int, list[bytes]]:
    (time_ms,) = REAL.unpack_from(element)
    return int(time_ms), msgpack.unpackb(element[REAL.size :], raw=True)


class InProcessHost:
    """The same Lua files in this process."""

    def __init__(self) -> None:
        self.kernel = KernelInProcess()
        self.hold_budget, self.retention_ms = 0, RETENTION_MS

    def reset(self) -> None:
        self.hold_budget, self.retention_ms = 0, RETENTION_MS
        self.kernel.tables = Tables()

    def decide(self, flat: Sequence[Any], count: int, *, now_ms: int) -> Any:
        self.kernel.hold_budget, self.kernel.retention_ms = self.hold_budget, self.retention_ms
        return self.kernel.decide(flat, count, now_ms=now_ms)

    def state(self) -> State:
        tables = self.kernel.tables
        return State(
            tables.sequence,
            dict(tables.items),
            dict(tables.holds),
            dict(tables.expiry),
            list(tables.ended),
            set(tables.fields),
            list(tables.ledger),
        )

    def digest(self) -> object:
        return self.state()

    def overwrite(self, table: str, key: bytes, record: bytes) -> None:
        getattr(self.kernel.tables, table)[key] = record

    def note_ended(self, ended_ms: int, id_: bytes) -> None:
        self.kernel.tables.ended.insert(0, (ended_ms, [id_]))
