"""What was decided: what each decision saw, what it made, and what it makes when made again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from holdfast_server.kernel.lua import LuaError
from holdfast_server.kernel.records import US_BYTE, decode_item
from holdfast_server.ledger.leaf import EVENT_SIZE
from holdfast_server.ledger.past import Past
from holdfast_server.ledger.redeciding import Redecider, question_of
from holdfast_server.model import (
    Commit,
    Extend,
    Item,
    LedgerEntry,
    Outcome,
    Release,
    Reserve,
)

Claim = Reserve | Commit | Release | Extend


class Decision(NamedTuple):
    """One decision: the items it was made on as they stood just before, and its entry.

    It is reproduced when the kernel made the same entry, and the same rows, from the ledger alone.
    """

    entry: LedgerEntry
    seen: Sequence[Item]
    is_reproduced: bool


class Moment(NamedTuple):
    """When an answer was given that is no entry: after which one, and at what time."""

    sequence: int
    time_ms: int


async def decisions_of(past: Past, reservation_id: str) -> list[Decision]:
    """Return the decisions about a reservation that made entries, in order.

    Raises ResumeTokenExpired where what they were made on is no longer kept.
    """
    entries = await past.archive.entries_of(reservation_id)
    return [await _decision(past, entry) for entry in entries]


async def judged(
    past: Past, operation: Claim, moment: Moment, budget_left: int | None = None
) -> Outcome | None:
    """Answer an operation that made no entry once more, from the ledger alone; None: it cannot be.

    The ledger does not say what hold budget was in force: where that refused, `budget_left` is what
    it left of it.  When units were to come free next is not worked out.
    """
    ids = (operation.reservation_id, operation.replaces if isinstance(operation, Reserve) else "")
    found = {id_.encode(): await past.record(id_, moment.sequence) for id_ in ids if id_}
    records = {id_: record for id_, record in found.items() if record is not None}
    redecider, budget, rows = Redecider(), 0, dict[bytes, bytes]()
    fields = redecider.reads(question_of(operation), records)
    if moment.sequence:
        rows = await past.rows(fields, moment.sequence)
    if budget_left is not None:
        budget = 1
        held = (budget - budget_left).to_bytes(4, "little", signed=True)
        rows[US_BYTE + operation.caller.principal.encode()] = held
    redecider.keep(rows, records)
    try:
        return redecider.judge(
            operation, time_ms=moment.time_ms, sequence=moment.sequence, budget=budget
        )
    except LuaError:
        return None


async def items_at(past: Past, skus: Iterable[str], sequence: int) -> list[Item]:
    """Return items as they stood after an entry, without those that were not there yet."""
    rows = await past.items(skus, sequence) if sequence else {}
    return [decode_item(sku, rows[sku.encode()]) for sku in skus if sku.encode() in rows]


async def _decision(past: Past, entry: LedgerEntry) -> Decision:
    batch = await past.batch(entry.sequence)
    made = await past.redecided(batch)
    at = (entry.sequence - batch.first) * EVENT_SIZE
    written = dict(zip(batch.rows[::2], batch.rows[1::2], strict=True))
    is_same = made.events[at : at + EVENT_SIZE] == list(batch.events[at : at + EVENT_SIZE])
    return Decision(entry, await _seen(past, entry), is_same and made.rows == written)


async def _seen(past: Past, entry: LedgerEntry) -> list[Item]:
    lines = entry.reservation.lines if entry.reservation else ()
    return await items_at(past, dict.fromkeys(line.sku for line in lines), entry.sequence - 1)
