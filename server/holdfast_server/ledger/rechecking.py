"""replay_decides_alike: the whole ledger decided again, and the state that it ends in.

Two promises in one pass: each batch comes out of the kernel as the very bytes that were recorded,
and what they add up to is what the archive holds as the state of now.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import NamedTuple

from holdfast_server.kernel.records import US_BYTE, decode_reservation
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.origins import BUDGETED
from holdfast_server.ledger.past import Rows, stored
from holdfast_server.ledger.redeciding import Difference, Redecider
from holdfast_server.ledger.state import state_digest

BATCHES = 64
DIFFERENCES_MAX = 20


class Rechecked(NamedTuple):
    """What deciding it all again found.  `digest` names the state made, `kept` the archive's."""

    entries: int
    differences: list[Difference]
    digest: bytes
    kept: bytes


async def decide_again(archive: Archive) -> Rechecked:
    """Decide every entry of an archive again, from the first one to where it is now.

    Raises ArchivePurged where the first ones are gone, StoreUnavailable.
    """
    through, kept = await archive.at_rest(partial(archived_state, archive))
    redecider, differences, sequence = Redecider(), list[Difference](), 0
    while sequence < through:
        for record in await archive.batches(sequence + 1, limit=BATCHES):
            if record.last <= through:
                difference = redecider.follow(stored(record))
                if difference and len(differences) < DIFFERENCES_MAX:
                    differences.append(difference)
            sequence = record.last
        await asyncio.sleep(0)
    return Rechecked(through, differences, state_digest(*redecider.state()), state_digest(*kept))


async def archived_state(archive: Archive) -> tuple[Rows, Rows]:
    """Return the rows and the live holds that an archive's tables hold.

    What a principal holds has no table: it is the sum of its holds that count against a budget.
    """
    holds = {id_.encode(): record async for id_, record in archive.held()}
    rows = {sku.encode(): row async for sku, row in archive.items()}
    async for sku, location, row in archive.locations():
        rows[sku.encode() + US_BYTE + location.encode()] = row
    return rows | budgets_of(holds), holds


def budgets_of(holds: Rows) -> Rows:
    """Return the rows of what each principal holds, by its live holds."""
    held: Counter[str] = Counter()
    for id_, record in holds.items():
        if record[1] & BUDGETED:
            reservation = decode_reservation(id_.decode(), record)
            held[reservation.principal] += sum(line.quantity for line in reservation.lines)
    return {
        US_BYTE + principal.encode(): units.to_bytes(4, "little")
        for principal, units in held.items()
    }
