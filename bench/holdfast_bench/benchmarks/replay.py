"""How fast the past is worked out: entries a second, from the ledger of a store to its last state.

Decided again is the proof: the kernel makes every entry and row anew, and each is compared.  Folded
is the short way: the last row of a key wins.  The third way reads the ledger from an archive, and
compares the state it ends in with the archive's too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from time import perf_counter

from holdfast_bench.measure import Plan, Row, Series, take_turns
from holdfast_bench.stores import CALLER, CELL, ON_HAND, StoreAddress, opened
from holdfast_bench.traffic import operations
from holdfast_bench.workload import catalogue
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.leaf import read_batch
from holdfast_server.ledger.rechecking import decide_again
from holdfast_server.ledger.redeciding import Redecider
from holdfast_server.ledger.state import Fold
from holdfast_server.model import AdjustStock, PutItem

SKUS, BATCH = 1_000, 64
ENTRIES, ENTRIES_QUICK = 40_000, 2_000
OWED = 50_000  # entries a second
DECIDED = "decided again"


async def run(plan: Plan, address: StoreAddress) -> list[Row]:
    """Measure entries a second by each way."""
    bodies, entries = await _recorded(address, ENTRIES if plan.is_judged else ENTRIES_QUICK)
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        async with Archive.open(f"sqlite+aiosqlite:///{Path(folder) / 'archive.db'}") as archive:
            await archive.apply(bodies)

            async def decided() -> float:
                return _timed(entries, _decide, bodies)

            async def folded() -> float:
                return _timed(entries, _fold, bodies)

            async def kept() -> float:
                began = perf_counter()
                found = await decide_again(archive)
                if found.differences or found.digest != found.kept:
                    raise RuntimeError("a decision did not come out again as it was")
                return entries / (perf_counter() - began)

            ways = {DECIDED: decided, "folded": folded, "decided again from an archive": kept}
            found = await take_turns(ways, plan)
    bound = Series((float(OWED),) * plan.rounds)
    return [
        Row(f"replay, {way}", address.name, "entries/s", values, bound, "owed", _owed(way))
        for way, values in found.items()
    ]


def _owed(way: str) -> float | None:
    return 1.0 if way == DECIDED else None


async def _recorded(address: StoreAddress, entries: int) -> tuple[list[bytes], int]:
    """Return the ledger of a store that made items and sold, and how many entries it has."""
    skus = catalogue(SKUS)
    async with opened(address, CELL) as cell:
        for first in range(0, SKUS, BATCH):
            part = skus[first : first + BATCH]
            await cell.decide([PutItem(f"put-{sku}", CALLER, sku) for sku in part])
            await cell.decide([AdjustStock(f"in-{sku}", CALLER, sku, ON_HAND) for sku in part])
        traffic = operations(skus)
        while cell.store.known.sequence < entries:
            await cell.decide(list(islice(traffic, BATCH)))
        stream = await cell.client.xrange(cell.keys.ledger)
        return [fields[b"e"] for _id, fields in stream], cell.store.known.sequence


def _timed(entries: int, work: Callable[[list[bytes]], None], bodies: list[bytes]) -> float:
    began = perf_counter()
    work(bodies)
    return entries / (perf_counter() - began)


def _decide(bodies: list[bytes]) -> None:
    redecider = Redecider()
    for body in bodies:
        if redecider.follow(read_batch(body)):
            raise RuntimeError("a decision did not come out again as it was")


def _fold(bodies: list[bytes]) -> None:
    fold = Fold()
    for body in bodies:
        fold.take(read_batch(body))
