"""Counts taken in the past: a count is true as of a moment, and what moved since still counts."""

from __future__ import annotations

from typing import Protocol

from holdfast_server.engine.batcher import Batcher
from holdfast_server.errors import InvalidArgument, StaleQuantity
from holdfast_server.model import Code, Head, LedgerEntry, Outcome, SetStock

TRIES_MAX = 8
PAGE = 1_000


class LedgerReader(Protocol):
    """What a recount needs of a store: to read what happened since."""

    async def head(self) -> Head:
        """Return the end of the ledger."""
        ...

    async def entries(self, from_sequence: int, *, limit: int) -> list[LedgerEntry]:
        """Return entries from a sequence on, in order."""
        ...


async def recount(batcher: Batcher, ledger: LedgerReader, operation: SetStock) -> Outcome:
    """Set stock from a count taken as of a sequence.

    Units that moved at the location after that sequence are added to the count, and the result is
    applied only if the item has not changed meanwhile; otherwise it is worked out again.
    Raises InvalidArgument for a sequence of the future, and StaleQuantity when the ledger no
    longer reaches back to it or the item never rests.
    """
    as_of = operation.as_of_sequence
    assert as_of is not None
    for _try in range(TRIES_MAX):
        head = await ledger.head()
        if as_of > head.sequence:
            limit = f"must be at most {head.sequence}, the end of the ledger"
            raise InvalidArgument.of(("as_of_sequence", limit))
        if as_of + 1 < head.first_sequence:
            raise StaleQuantity(f"the ledger starts at sequence {head.first_sequence}")
        moved = await _moved(ledger, operation, as_of + 1, head.sequence)
        outcome = await batcher.execute(operation._replace(moved=moved, if_sequence=head.sequence))
        if outcome.code != Code.STOCK_CHANGED:
            return outcome
    raise StaleQuantity("the item changed during every try")


async def _moved(ledger: LedgerReader, operation: SetStock, first: int, last: int) -> int:
    """Return the units that on_hand gained at the location from one sequence to another."""
    moved = 0
    while first <= last:
        entries = await ledger.entries(first, limit=PAGE)
        if not entries:
            break
        moved += sum(
            movement.on_hand
            for entry in entries
            if entry.sequence <= last
            for movement in entry.movements
            if movement.sku == operation.sku and movement.location == operation.location
        )
        first = entries[-1].sequence + 1
    return moved
