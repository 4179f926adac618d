"""Bytes in the store: a live hold, an ended reservation, an event of the ledger.

MEMORY USAGE of the keys, all members counted, over the number of what they hold; ids of 26
characters, SKUs of 10, one line, batches of 128.
"""

from __future__ import annotations

from itertools import islice

from holdfast_bench.measure import Plan, Row, Series
from holdfast_bench.stores import CALLER, CELL, Cell, StoreAddress, opened
from holdfast_bench.traffic import reservation_ids
from holdfast_bench.workload import catalogue, drawn
from holdfast_server.model import Commit, Line, Operation, Reserve

HOLDS, BATCH = 12_800, 128


async def _usage(cell: Cell, *keys: str) -> int:
    found = 0
    for key in keys:
        found += await cell.client.memory_usage(key, samples=0) or 0
    return found


async def _execute(cell: Cell, operations: list[Operation]) -> None:
    for first in range(0, len(operations), BATCH):
        await cell.decide(operations[first : first + BATCH])


async def run(_plan: Plan, address: StoreAddress) -> list[Row]:
    """Measure once: the sizes are exact."""
    skus = catalogue(1_000)
    sku, ids = drawn(skus), list(islice(reservation_ids(), HOLDS))
    async with opened(address, CELL) as cell:
        await cell.put_on_sale(skus)
        keys = cell.keys
        await _execute(cell, [Reserve(name, CALLER, (Line(next(sku), 1),), 60_000) for name in ids])
        live = await _usage(cell, keys.holds, keys.expiry)
        reserves = await _usage(cell, keys.ledger)
        await _execute(cell, [Commit(name, CALLER) for name in ids])
        ended = await _usage(cell, keys.holds, keys.ended)
        events = await _usage(cell, keys.ledger)
        items = await _usage(cell, keys.items, keys.skus)
    return [
        Row(name, address.name, "bytes", Series((size / count,)))
        for name, size, count in (
            ("memory of a live hold", live, HOLDS),
            ("memory of an ended reservation", ended, HOLDS),
            ("memory of a Reserve in the ledger", reserves, HOLDS),
            ("memory of a Commit in the ledger", events - reserves, HOLDS),
            ("memory of an item", items, len(skus)),
        )
    ]
