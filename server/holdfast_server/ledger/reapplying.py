"""What only the store had, decided again on the state of the archive."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from holdfast_server.kernel.records import HOLD, decode_reservation
from holdfast_server.ledger.archive import Review
from holdfast_server.ledger.leaf import StoredBatch, read_batch
from holdfast_server.ledger.origins import Event, asked_of, events_of
from holdfast_server.ledger.restoring import Store
from holdfast_server.model import Code, Kind

REVIEW_DUE_MS = 24 * 3_600_000
SUPERSEDED = 2
_READS = (Kind.GET_RESERVATION, Kind.GET_STOCK)


class Asked(NamedTuple):
    """One operation in the kernel's form."""

    kind: int
    id: bytes
    flat: list[Any]


@dataclass
class LeftOver:
    """Batches to decide again, and what became of them.

    A hold that they made and that was over by its end, or is by now, is left out: nobody has it.
    """

    store: Store
    epoch: int
    bodies: AsyncIterator[bytes]
    applied: int = 0
    ended: int = 0
    reviews: list[Review] = field(default_factory=list)

    async def apply(self) -> None:
        """Decide all of them again, in order.  Raises StoreUnavailable."""
        batches = [read_batch(body) async for body in self.bodies]
        now_ms = time.time_ns() // 1_000_000
        over = _over([event for batch in batches for event in events_of(batch)], now_ms)
        for batch in batches:
            operations = []
            for operation in _operations(batch):
                if operation.id in over:
                    self.ended += operation.kind == Kind.RESERVE
                elif operation.kind not in _READS:
                    operations.append(operation)
            if operations:
                await self._apply(batch, operations, now_ms)

    async def _apply(self, batch: StoredBatch, operations: list[Asked], now_ms: int) -> None:
        flat = [value for operation in operations for value in operation.flat]
        codes = [Code.AGAIN]
        while Code.AGAIN in codes:  # more is due than one batch ends
            outs = await self.store.decide(
                self.epoch, flat, len(operations), budget=asked_of(batch).budget
            )
            codes = [Code(int(out[0])) for out in outs]
        events = {event.id: event for event in events_of(batch)}
        for operation, code in zip(operations, codes, strict=True):
            if code <= Code.REPLAYED:
                self.applied += 1
            else:
                self.reviews.append(_review(batch, events[operation.id], code, now_ms))


def _operations(batch: StoredBatch) -> Iterator[Asked]:
    flat, at = asked_of(batch).flat, 0
    while at < len(flat):
        size = flat[at + 1]
        yield Asked(flat[at], flat[at + 2], flat[at : at + size])
        at += size


def _over(events: list[Event], now_ms: int) -> set[bytes]:
    """Return the holds that began here and were not sold, and are nobody's any more."""
    begun = {event.id for event in events if event.kind == Kind.RESERVE}
    last = {event.id: event.record for event in events if event.id in begun}
    return {name for name, record in last.items() if _is_over(record, now_ms)}


def _is_over(record: bytes, now_ms: int) -> bool:
    state, flags, _count, _sequence, _created, expires, *_rest = HOLD.unpack_from(record)
    if flags & SUPERSEDED or state == b"C":  # its successor asks for it by name
        return False
    return bool(state != b"H" or expires <= now_ms)


def _review(batch: StoredBatch, event: Event, code: Code, now_ms: int) -> Review:
    name, kind = event.id.decode(), Kind(event.kind)
    sku, units = "", 0
    if kind < Kind.PUT_ITEM:
        lines = decode_reservation(name, event.record).lines
        sku, units = lines[0].sku, sum(line.quantity for line in lines)
    return Review(
        "recovery",
        sku,
        name,
        batch.last,
        units,
        f"{kind.name.lower()} of epoch {batch.epoch} refused with {code.name} when applied again",
        now_ms,
        now_ms + REVIEW_DUE_MS,
    )
