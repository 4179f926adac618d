"""What watches had told by a moment: of each one its last message.

A watch belongs to no session, so it is its principal's, and may have been for another agent of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from holdfast_server.ledger.audit import WATCHES, AuditKind, AuditRecord
from holdfast_server.ledger.past import Past
from holdfast_server.model import Position

RECORDS_MAX = 1_000  # looked through, the newest of a principal
TOLD_LATE_MS = 75_000  # what a watch was told is on record within 10 s and its longest heartbeat


class Claim(NamedTuple):
    """Who decided something, when, and the sequence that it was decided on."""

    principal: str
    time_ms: int
    sequence: int


class Sight(NamedTuple):
    """What a watch had told: when, up to where, and which items of it matter."""

    watch_id: str
    time_ms: int
    position: Position
    skus: tuple[str, ...]


async def sights_of(past: Past, claim: Claim, skus: Sequence[str]) -> list[Sight]:
    """Return what the watches of who claimed had told last of some items before."""
    until_ms = claim.time_ms + TOLD_LATE_MS
    records = await past.archive.queries_in(
        claim.principal, WATCHES, before_ms=until_ms, limit=RECORDS_MAX
    )
    found = []
    for name, (told_ms, *position) in _tellings(records, claim).items():
        wanted = await _wanted(past, name, skus)
        if wanted and all(position):
            found.append(Sight(name, told_ms, Position(*position), wanted))
    return found


def _tellings(records: Iterable[AuditRecord], claim: Claim) -> dict[str, tuple[int, int, int]]:
    """Return, by watch, time, epoch and sequence of the last message before a claim."""
    found: dict[str, tuple[int, int, int]] = {}
    for record in records:
        told: Sequence[int] = ()
        if record.kind is AuditKind.WATCH:
            told = (record.time_ms, record.sequence)
        elif record.kind is AuditKind.WATCH_TOLD:
            told = record.answered
        for time_ms, sequence in zip(told[::2], told[1::2], strict=True):
            if time_ms <= claim.time_ms and sequence <= claim.sequence:
                found[record.id] = (time_ms, record.epoch, sequence)
    return found


async def _wanted(past: Past, watch_id: str, skus: Iterable[str]) -> tuple[str, ...]:
    """Return which items a watch was of; none if its start is no longer kept."""
    for record in await past.archive.queries_of(watch_id):
        if record.kind is AuditKind.WATCH:
            of, count, _resumed = record.asked
            return tuple(sku for sku in skus if not count or sku in of)
    return ()
