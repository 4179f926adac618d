"""The store's state, built from the archive in bounded steps under keys of its own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence, Set
from struct import Struct
from typing import Any, Protocol, TypeVar

import msgpack

from holdfast_server.kernel.records import HOLD, US, decode_reservation
from holdfast_server.ledger.archive import Archive, Archived
from holdfast_server.ledger.leaf import read_leaf
from holdfast_server.ledger.origins import BUDGETED
from holdfast_server.model import Kind

CHUNK = 1_000
GRACE_MS = 60_000
EXPIRES = 5  # in the head of a reservation's record
_TIME = Struct("<d")
_UNITS = Struct("<i")
T = TypeVar("T")


class Sealed(Protocol):
    """A store that nobody writes to."""

    @property
    def epoch(self) -> int:
        """Return the epoch that it will have."""
        ...

    @property
    def is_exchanged(self) -> bool:
        """Tell whether it is rebuilt, and only what it had beyond is to be applied."""
        ...

    @property
    def common(self) -> int:
        """Return, of such a one, up to where it had what the archive has."""
        ...


class Store(Protocol):
    """The store that is rebuilt; what its verbs do stands in stores/redis/rebuilding.py."""

    async def is_sealed(self) -> bool: ...
    async def seal(self, token: int, epoch: int) -> Sealed: ...
    async def discard(self) -> None: ...
    async def put(self, name: str, pairs: Sequence[tuple[bytes, bytes]]) -> None: ...
    async def put_scores(self, name: str, scores: dict[bytes, int]) -> None: ...
    async def put_ended(self, elements: Sequence[bytes]) -> None: ...
    async def exchange(
        self, token: int, epoch: int, *, sequence: int, clock_ms: int, common: int
    ) -> None: ...
    def left_over(self, after: int) -> AsyncIterator[bytes]: ...
    async def decide(
        self, epoch: int, flat: Sequence[Any], count: int, *, budget: int
    ) -> list[Any]: ...
    async def open(self, token: int, epoch: int) -> None: ...


class Built:
    """What is built, and how much of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.counts: Counter[str] = Counter()

    async def fields(self, kind: str, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Add rows of items or locations, which are paged through by name."""
        await self._store.put("items", pairs)
        await self._store.put_scores("skus", {name: 0 for name, _row in pairs})
        self.counts[kind] += len(pairs)

    async def budgets(self, units: dict[str, int]) -> None:
        """Add what principals hold."""
        await self._store.put(
            "items", [(f"{US}{name}".encode(), _UNITS.pack(held)) for name, held in units.items()]
        )
        self.counts["budgets"] += len(units)

    async def held(self, holds: Sequence[tuple[bytes, bytes]]) -> None:
        """Add reservations that are held."""
        await self._store.put("holds", holds)
        await self._store.put_scores(
            "expiry", {name: int(HOLD.unpack_from(record)[EXPIRES]) for name, record in holds}
        )
        self.counts["holds"] += len(holds)

    async def past(self, records: Sequence[tuple[bytes, bytes]], ended: Sequence[bytes]) -> None:
        """Add records that are kept for a while, so that what is repeated finds them."""
        await self._store.put("holds", records)
        await self._store.put_ended(ended)
        self.counts["records"] += len(records)


class Restoring:
    """Builds the state as of the archive's end.

    A hold among `sold` was sold since, as far as the store knows, so it is given the time that it
    takes to sell it again.
    """

    def __init__(
        self, archive: Archive, built: Built, retention_ms: int, sold: Set[bytes] = frozenset()
    ) -> None:
        self._archive, self._built, self._retention_ms = archive, built, retention_ms
        self._sold, self._grace_until = sold, time.time_ns() // 1_000_000 + GRACE_MS

    async def run(self, archived: Archived) -> None:
        """Build it all.  Raises StoreUnavailable."""
        async for items in _chunks(self._archive.items()):
            await self._built.fields("items", [(sku.encode(), row) for sku, row in items])
        async for places in _chunks(self._archive.locations()):
            rows = [(f"{sku}{US}{place}".encode(), row) for sku, place, row in places]
            await self._built.fields("locations", rows)
        async for leaves in _chunks(self._archive.since(archived.time_ms - self._retention_ms)):
            await self._past(leaves)
        units: Counter[str] = Counter()
        async for holds in _chunks(self._archive.held()):
            await self._built.held([self._held(name.encode(), record) for name, record in holds])
            units.update(_budgets(holds))
        await self._built.budgets(units)

    def _held(self, name: bytes, record: bytes) -> tuple[bytes, bytes]:
        if name not in self._sold:
            return name, record
        head = list(HOLD.unpack_from(record))
        head[EXPIRES] = max(head[EXPIRES], self._grace_until)
        return name, HOLD.pack(*head) + record[HOLD.size :]

    async def _past(self, leaves: Sequence[bytes]) -> None:
        records: list[tuple[bytes, bytes]] = []
        ended: list[bytes] = []
        for leaf in map(read_leaf, leaves):
            records.append((leaf.key, leaf.record))
            if leaf.kind >= Kind.PUT_ITEM or leaf.record[:1] != b"H":
                ids = msgpack.packb([leaf.key], use_bin_type=False)
                ended.append(_TIME.pack(leaf.time_ms) + ids)
        await self._built.past(records, ended)


def _budgets(holds: Sequence[tuple[str, bytes]]) -> Counter[str]:
    units: Counter[str] = Counter()
    for name, record in holds:
        if record[1] & BUDGETED:
            reservation = decode_reservation(name, record)
            units[reservation.principal] += sum(line.quantity for line in reservation.lines)
    return units


async def _chunks(stream: AsyncIterator[T]) -> AsyncIterator[list[T]]:
    chunk: list[T] = []
    async for value in stream:
        chunk.append(value)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
