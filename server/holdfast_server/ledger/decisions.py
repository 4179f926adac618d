"""What was decided: what each decision saw, what it answered, and whether it answers so again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from typing import NamedTuple

from holdfast_server.kernel.records import decode_item
from holdfast_server.ledger.audit import AuditKind, AuditRecord
from holdfast_server.ledger.leaf import EVENT_SIZE
from holdfast_server.ledger.moments import at_sequence
from holdfast_server.ledger.past import Past
from holdfast_server.ledger.rejudging import answered, is_answered_again
from holdfast_server.ledger.sights import Claim, Sight, sights_of
from holdfast_server.model import Context, Item, Kind, LedgerEntry, Level, Outcome

QUERIES_MAX = 100  # looked through for what an agent had asked before


class Decision(NamedTuple):
    """One decision: what it saw, and its entry, or what was answered without one.

    `seen` are the levels just before an entry, or those answered, or those that a watch had told;
    `items` are as they stood then.  It is reproduced when the kernel makes the same entry and rows,
    or the same answer, from the ledger alone; what a watch had told, when its sequence is of the
    same history still.
    """

    time_ms: int
    sequence: int
    context: Context
    seen: Sequence[Level]
    items: Sequence[Item]
    is_reproduced: bool
    entry: LedgerEntry | None = None
    outcome: Outcome | None = None
    query_id: str = ""
    watch_id: str = ""


async def decisions_of(past: Past, reservation_id: str) -> list[Decision]:
    """Return everything about a reservation, in order; nothing about one that never was.

    That is its entries, what was refused it, what the same principal and session had asked of the
    same items before, and what the principal's watches had told of them last.  Raises
    ResumeTokenExpired where the ledger is no longer kept.
    """
    entries = await past.entries_of(reservation_id)
    records = await past.archive.queries_of(reservation_id)
    refused = [record for record in records if record.kind is AuditKind.DECISION]
    asked = await _asked_before(past, entries, refused)
    found = [
        *[await _made(past, entry) for entry in entries],
        *[await _refused(past, record) for record in refused],
        *[await _told(past, parts) for parts in asked],
        *[await _shown(past, sight) for sight in await _sights(past, entries, refused)],
    ]
    return sorted(found, key=lambda one: (one.sequence, one.entry is None, one.time_ms))


async def queries_of(past: Past, query_id: str) -> list[Decision]:
    """Return what a query answered; nothing of one that never was."""
    parts = await past.archive.queries_of(query_id)
    return [await _told(past, query) for query in _queries(parts)]


def _skus(entries: Sequence[LedgerEntry], refused: Sequence[AuditRecord]) -> list[str]:
    """Return all items that a reservation was ever about."""
    lines = [*(entry.reservation.lines for entry in entries if entry.reservation)]
    skus = [line.sku for line in chain.from_iterable(lines)]
    skus += [line[0] for record in refused for line in record.asked[1]]
    return [*dict.fromkeys(skus)]


async def _sights(
    past: Past, entries: Sequence[LedgerEntry], refused: Sequence[AuditRecord]
) -> list[Sight]:
    reserved = [entry for entry in entries if entry.kind is Kind.RESERVE]
    claims = [Claim(one.principal, one.time_ms, one.sequence - 1) for one in reserved]
    claims += [Claim(one.principal, one.time_ms, one.sequence) for one in refused]
    skus = _skus(entries, refused)
    found = [await sights_of(past, claim, skus) for claim in claims if claim.principal]
    return [*dict.fromkeys(chain.from_iterable(found))]


async def _shown(past: Past, sight: Sight) -> Decision:
    epoch, sequence = sight.position
    levels = (await at_sequence(past, sight.skus, sequence)).levels.values()
    return Decision(
        sight.time_ms,
        sequence,
        Context(),
        [level for level in levels if level],
        await _items(past, sight.skus, sequence),
        (await past.batch(sequence)).epoch <= epoch,  # else the store lost what was told
        watch_id=sight.watch_id,
    )


async def _asked_before(
    past: Past, entries: Sequence[LedgerEntry], refused: Sequence[AuditRecord]
) -> list[list[AuditRecord]]:
    skus = {*_skus(entries, refused)}
    sessions = {(one.principal, one.context.session_id): one.time_ms for one in refused}
    for entry in entries:
        if entry.kind is Kind.RESERVE or any(entry.context):
            sessions[entry.principal, entry.context.session_id] = entry.time_ms
    found = []
    for (principal, session), time_ms in sessions.items():
        records = await past.archive.queries_in(
            principal, session, before_ms=time_ms, limit=QUERIES_MAX
        )
        found += [parts for parts in _queries(records) if skus & {*_named(parts)}]
    return found


def _queries(records: Iterable[AuditRecord]) -> list[list[AuditRecord]]:
    """Return the parts of each whole query among some records."""
    asked = (record for record in records if record.kind is AuditKind.QUERY)
    groups = [list(parts) for _id, parts in groupby(asked, lambda record: record.id)]
    return [parts for parts in groups if len(_named(parts)) == parts[0].asked]


def _named(parts: Sequence[AuditRecord]) -> list[str]:
    return [sku for part in parts for sku in part.answered[0]]


async def _made(past: Past, entry: LedgerEntry) -> Decision:
    batch = await past.batch(entry.sequence)
    made = await past.redecided(batch)
    at = (entry.sequence - batch.first) * EVENT_SIZE
    written = dict(zip(batch.rows[::2], batch.rows[1::2], strict=True))
    is_same = made.events[at : at + EVENT_SIZE] == list(batch.events[at : at + EVENT_SIZE])
    lines = entry.reservation.lines if entry.reservation else ()
    items = await _items(past, [line.sku for line in lines], entry.sequence - 1)
    return Decision(
        entry.time_ms,
        entry.sequence,
        entry.context,
        [item.level for item in items],
        items,
        is_same and made.rows == written,
        entry,
    )


async def _refused(past: Past, record: AuditRecord) -> Decision:
    levels = [level for level in record.levels if level]
    skus = [line[0] for line in record.asked[1]] or [level.sku for level in levels]
    return Decision(
        record.time_ms,
        record.sequence,
        record.context,
        levels,
        await _items(past, skus, record.sequence),
        await is_answered_again(past, record),
        outcome=answered(record),
    )


async def _told(past: Past, parts: Sequence[AuditRecord]) -> Decision:
    first, skus = parts[0], _named(parts)
    levels = [level for part in parts for level in part.levels]
    again: list[Level | None] = [None] * len(skus)
    if first.sequence:
        moment = await at_sequence(past, skus, first.sequence)
        again = [moment.levels[sku] for sku in skus]
    return Decision(
        first.time_ms,
        first.sequence,
        first.context,
        [level for level in levels if level],
        await _items(past, skus, first.sequence),
        again == levels,
        query_id=first.id,
    )


async def _items(past: Past, skus: Iterable[str], sequence: int) -> list[Item]:
    """Return items as they stood after an entry, without those that were not there yet."""
    wanted = dict.fromkeys(skus)
    rows = await past.items(wanted, sequence) if sequence else {}
    return [decode_item(sku, rows[sku.encode()]) for sku in wanted if sku.encode() in rows]
