"""archive_equals_ledger: the tables of what is now, against the fold of all that happened.

The tables were written a transaction at a time; here the batches that are kept are folded from the
first one on, in one go.  Every column of every row has to be the same.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Table, select

from holdfast_server.ledger import schema
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.folding import Folding
from holdfast_server.ledger.past import stored

BATCHES = 64
DIFFERENCES_MAX = 20
TABLES = (schema.items, schema.locations, schema.reservations)

State = dict[str, dict[tuple[Any, ...], tuple[Any, ...]]]  # rows by table and primary key


class Compared(NamedTuple):
    """How many entries were folded, and the first 20 rows that are not what they add up to."""

    entries: int
    differences: list[str]


async def compare(archive: Archive) -> Compared:
    """Compare an archive's tables with the fold of its ledger, which stays in memory.

    Raises ArchivePurged where the first entries are gone, StoreUnavailable.
    """
    through, kept = await archive.at_rest(partial(_kept, archive))
    folded, sequence = State({table.name: {} for table in TABLES}), 0
    while sequence < through:
        found = await archive.batches(sequence + 1, limit=BATCHES)
        if not found:
            return Compared(sequence, [f"ledger: nothing after {sequence} of {through}"])
        folding = Folding(archive.cell)
        for record in found:
            if record.first != sequence + 1:
                return Compared(sequence, [f"ledger: no batch begins at {sequence + 1}"])
            sequence = record.last
            if sequence <= through:
                folding.add(stored(record))
        _update(folded, folding)
        await asyncio.sleep(0)
    return Compared(through, _differences(folded, kept)[:DIFFERENCES_MAX])


async def _kept(archive: Archive) -> State:
    return {
        table.name: {
            row[: _key_size(table)]: row for row in await archive.table_rows(select(table))
        }
        for table in TABLES
    }


def _update(folded: State, folding: Folding) -> None:
    for table, rows in folding.tables():
        if table in TABLES:
            folded[table.name].update((row[: _key_size(table)], row) for row in rows)


def _key_size(table: Table) -> int:
    return len(table.primary_key)


def _differences(folded: State, kept: State) -> list[str]:
    found = []
    for name, rows in folded.items():
        for key in sorted(rows.keys() | kept[name].keys()):
            expected, row = rows.get(key), kept[name].get(key)
            if row is None:
                found.append(f"{name} {key}: the ledger made it, and it is not there")
            elif expected is None:
                found.append(f"{name} {key}: the ledger never made it")
            elif expected != row:
                found.append(f"{name} {key}: not as the ledger left it")
    return found
