"""What is sent: reservations of one line and their commits, every id new."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count

from holdfast_bench.measure import Measurement, Plan
from holdfast_bench.stores import CALLER, Cell, check
from holdfast_bench.workload import WARM_S, drawn
from holdfast_server.engine.batcher import Answer, Batcher
from holdfast_server.model import Commit, Line, Operation, Reserve

Execute = Callable[[Operation], Awaitable[Answer]]

CALLERS = 256
_numbers = count()


def reservation_ids() -> Iterator[str]:
    """Yield ids of 26 characters, the length of a ULID, never the same one in a process."""
    return (f"01BENCH{number:019d}" for number in _numbers)


def operations(skus: Sequence[str], *, held_max: int = 256) -> Iterator[Operation]:
    """Yield reserves, and from `held_max` holds on a commit of the oldest after each."""
    ids, sku = reservation_ids(), drawn(skus)
    held: deque[str] = deque()
    for reservation_id in ids:
        yield Reserve(reservation_id, CALLER, (Line(next(sku), 1),))
        held.append(reservation_id)
        if len(held) >= held_max:
            yield Commit(held.popleft(), CALLER)


@asynccontextmanager
async def engine(cell: Cell) -> AsyncIterator[Execute]:
    """Run a batcher over a cell, as the server does."""
    batcher = Batcher(cell.store)
    task = asyncio.create_task(batcher.run())
    try:
        yield batcher.execute
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def rate(execute: Execute, cell: Cell, plan: Plan, skus: Sequence[str]) -> Measurement:
    """Return the measurement of operations a second of concurrent callers.

    Each caller reserves and commits without a pause.  What they leave in the cell is dropped.
    """

    async def measure() -> float:
        await _closed_loop(execute, skus, WARM_S)
        found = await _closed_loop(execute, skus, plan.seconds)
        await cell.forget()
        return found

    return measure


async def _closed_loop(execute: Execute, skus: Sequence[str], seconds: float) -> float:
    ids, sku = reservation_ids(), drawn(skus)
    done, began = 0, time.perf_counter()
    ends_at = began + seconds

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < ends_at:
            reservation_id = next(ids)
            check(await execute(Reserve(reservation_id, CALLER, (Line(next(sku), 1),))))
            check(await execute(Commit(reservation_id, CALLER)))
            done += 2

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(caller())
    return done / (time.perf_counter() - began)
