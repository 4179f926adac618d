"""What durability costs: the engine over stores that sync never, each second, each batch."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import get_args

from holdfast_bench.measure import Measurement, Plan, Row, take_turns
from holdfast_bench.stores import CELL, StoreAddress, addressed, opened, valkey_server
from holdfast_bench.traffic import engine, rate
from holdfast_bench.workload import catalogue
from holdfast_server.stores.redis.embedded import Durability

SKUS = 1_000
BASE = "memory"


async def run(plan: Plan, _address: StoreAddress) -> list[Row]:
    """Measure the three levels in turns, on stores of its own."""
    contestants: dict[str, Measurement] = {}
    skus = catalogue(SKUS)
    async with AsyncExitStack() as stack:
        for durability in get_args(Durability):
            url = await stack.enter_async_context(valkey_server(durability))
            address = await addressed(url)
            cell = await stack.enter_async_context(opened(address, CELL))
            await cell.put_on_sale(skus)
            execute = await stack.enter_async_context(engine(cell))
            contestants[durability] = rate(execute, cell, plan, skus)
        found = await take_turns(contestants, plan)
    base = found.pop(BASE)
    return [
        Row(f"engine, durability {BASE}", address.name, "op/s", base),
        *(
            Row(f"engine, durability {name}", address.name, "op/s", series, base, BASE)
            for name, series in found.items()
        ),
    ]
