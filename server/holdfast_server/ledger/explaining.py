"""Why a level is what it is: every term of it, with the entries that made it."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from holdfast_server.errors import UnknownSku
from holdfast_server.kernel.records import LEVEL, decode_entries, decode_level
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.leaf import StoredBatch
from holdfast_server.ledger.past import Past
from holdfast_server.model import Kind, LedgerEntry, Level, State

CHANGES_MAX = 1_000
BATCHES_MAX = 2_000  # looked through, from the moment back


class Term(IntEnum):
    """A term of a level; the numbers of `StockTerm` in ledger.proto."""

    ON_HAND = 1
    HELD = 2
    COMMITTED = 3
    SAFETY_STOCK = 4
    BACKORDERED = 5
    OVERSELL_ALLOWANCE = 6


class Change(NamedTuple):
    """What one entry did to a term, in units."""

    sequence: int
    kind: Kind
    id: str
    units: int


class TermExplanation(NamedTuple):
    """A term: `earlier_units` and all changes add up to its value."""

    term: Term
    units: int
    changes: Sequence[Change]
    earlier_units: int


class Explanation(NamedTuple):
    """A level as of an entry, term by term."""

    level: Level
    terms: list[TermExplanation]
    sequence: int
    time_ms: int


async def explain(archive: Archive, sku: str, sequence: int) -> Explanation:
    """Explain the level of an item after an entry, from its newest 2,000 batches up to there.

    Raises UnknownSku, ResumeTokenExpired.
    """
    past = Past(archive)
    rows = await past.items([sku], sequence) if sequence else {}
    if not rows:
        raise UnknownSku(f"no such SKU: {sku}", metadata={"skus": sku})
    level = decode_level(sku, rows[sku.encode()])
    batches = await _batches(past, sku, sequence)
    account = _Account(sku, await _level_before(past, sku, batches[0]))
    for batch in batches:
        for entry in decode_entries([1, *batch]):
            if entry.sequence <= sequence:
                account.take(entry)
    terms = [_explained(term, value, account.made(term)) for term, value in _values(level).items()]
    return Explanation(level, terms, sequence, (await past.batch(sequence)).time_ms)


async def _batches(past: Past, sku: str, sequence: int) -> list[StoredBatch]:
    """Return the newest batches that changed an item up to an entry, in order."""
    touches = await past.archive.touches(sku, through=sequence, limit=BATCHES_MAX)
    return [await past.batch(last) for last in reversed(touches)]


async def _level_before(past: Past, sku: str, batch: StoredBatch) -> Level:
    """Return the level before a batch: all 0 where the item was not there yet."""
    rows = await past.items([sku], batch.first - 1) if batch.first > 1 else {}
    row = rows.get(sku.encode(), bytes(LEVEL.size))
    return decode_level(sku, row)


def _values(level: Level) -> dict[Term, int]:
    return {
        Term.ON_HAND: level.on_hand,
        Term.HELD: level.held,
        Term.COMMITTED: level.committed,
        Term.SAFETY_STOCK: level.safety_stock,
        Term.BACKORDERED: level.backordered,
        Term.OVERSELL_ALLOWANCE: level.allowance,
    }


class _Account:
    """What each entry did to each term, from the level that it begins with."""

    def __init__(self, sku: str, level: Level) -> None:
        self._sku = sku
        self._level = level
        self._made: dict[Term, deque[Change]] = {term: deque(maxlen=CHANGES_MAX) for term in Term}
        self._held: dict[str, list[Change]] = defaultdict(list)

    def take(self, entry: LedgerEntry) -> None:
        """Take the next entry into account."""
        before, after = _values(self._level), self._after(entry)
        for term, value in _values(after).items():
            if value != before[term]:
                change = Change(entry.sequence, entry.kind, entry.id, value - before[term])
                (self._held[entry.id] if term is Term.HELD else self._made[term]).append(change)
        if entry.reservation is not None and entry.reservation.state is not State.HELD:
            self._held.pop(entry.id, None)
        self._level = after

    def _after(self, entry: LedgerEntry) -> Level:
        if entry.item is not None and entry.item.level.sku == self._sku:
            return entry.item.level
        moves = [move for move in entry.movements if move.sku == self._sku]
        level = self._level
        return level._replace(
            on_hand=level.on_hand + sum(move.on_hand for move in moves),
            held=level.held + sum(move.held for move in moves),
            committed=level.committed + sum(move.committed for move in moves),
            backordered=level.backordered + sum(move.backordered for move in moves),
        )

    def made(self, term: Term) -> list[Change]:
        """Return the newest changes of a term, in order; of held, those of live holds."""
        if term is not Term.HELD:
            return list(self._made[term])
        return sorted(change for changes in self._held.values() for change in changes)[
            -CHANGES_MAX:
        ]


def _explained(term: Term, units: int, changes: Sequence[Change]) -> TermExplanation:
    return TermExplanation(term, units, changes, units - sum(change.units for change in changes))
