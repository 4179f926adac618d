"""Group commit against one script call an operation, with 256 concurrent callers.

The engine owes 5 times what the same operations reach as one EVALSHA each on redis-py's client, a
connection a caller, which is what people write.  How far a script call an operation gets on the
engine's own pipelined connection is shown beside it: there batching alone makes the difference.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgpack
from redis.asyncio import Connection, Redis

from holdfast_bench.measure import Plan, Row, take_turns
from holdfast_bench.stores import CELL, Cell, StoreAddress, opened
from holdfast_bench.traffic import CALLERS, Execute, engine, rate
from holdfast_bench.workload import catalogue
from holdfast_server.engine.batcher import Answer
from holdfast_server.kernel.source import script
from holdfast_server.kernel.wire import decode_batch, encode_batch
from holdfast_server.model import Operation
from holdfast_server.stores.redis.link import Link

OWED = 5
SKUS = 1_000
POOL, PIPELINED = "one EVALSHA each, redis-py pool", "one EVALSHA each, pipelined"

Call = Callable[..., Awaitable[Any]]


def _alone(call: Call, cell: Cell, sha: str) -> Execute:
    """Send every operation as a batch of its own."""
    epoch = cell.store.known.epoch

    async def execute(operation: Operation) -> Answer:
        packed = msgpack.packb(encode_batch((operation,)))
        answer = await call(
            "EVALSHA", sha, len(cell.keys), *cell.keys, epoch, 0, 0, 900_000, 1, packed
        )
        return decode_batch((operation,), msgpack.unpackb(answer, raw=True)).outcomes[0]

    return execute


async def _no_greeting(_connection: Connection) -> None:
    """Leave a new connection as it is: the script is loaded already."""


@asynccontextmanager
async def _calls(url: str) -> AsyncIterator[dict[str, Call]]:
    """Open what sends commands one by one."""
    client: Any = Redis.from_url(url, max_connections=CALLERS)
    link = Link(url, timeout_ms=10_000, greet=_no_greeting)
    try:
        yield {
            POOL: client.execute_command,
            PIPELINED: link.call,
        }
    finally:
        await link.aclose()
        await client.aclose()


async def run(plan: Plan, address: StoreAddress) -> list[Row]:
    """Measure the engine and both ways of doing without it."""
    skus = catalogue(SKUS)
    async with (
        opened(address, CELL) as cell,
        engine(cell) as batched,
        _calls(address.url) as calls,
    ):
        await cell.put_on_sale(skus)
        sha = await cell.client.script_load(script())
        executes = {name: _alone(call, cell, sha) for name, call in calls.items()}
        found = await take_turns(
            {
                name: rate(execute, cell, plan, skus)
                for name, execute in {"engine": batched, **executes}.items()
            },
            plan,
        )
    return [
        Row(f"engine, {SKUS:,} SKUs, {CALLERS} callers", address.name, "op/s", found["engine"],
            found[name], name, owed)
        for name, owed in ((POOL, OWED), (PIPELINED, None))
    ]  # fmt: skip
