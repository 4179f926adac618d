"""How the number of SKUs that orders fall on changes the rate.

One hot SKU may not be slower than 1,000 (0.95 in the median, which is what noise takes), and
100,000 SKUs owe 0.8 of 1,000.  Each catalogue is a cell of its own, all on one store.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from holdfast_bench.measure import Measurement, Plan, Row, take_turns
from holdfast_bench.stores import CELL, StoreAddress, opened
from holdfast_bench.traffic import engine, rate
from holdfast_bench.workload import catalogue

HOT, USUAL, MANY = 1, 1_000, 100_000
OWED = {HOT: 0.95, MANY: 0.8}


async def run(plan: Plan, address: StoreAddress) -> list[Row]:
    """Measure the engine over catalogues of three sizes."""
    contestants: dict[str, Measurement] = {}
    async with AsyncExitStack() as stack:
        for number, size in enumerate((HOT, USUAL, MANY)):
            cell = await stack.enter_async_context(opened(address, CELL + number))
            skus = catalogue(size)
            await cell.put_on_sale(skus)
            execute = await stack.enter_async_context(engine(cell))
            contestants[str(size)] = rate(execute, cell, plan, skus)
        found = await take_turns(contestants, plan)
    return [
        Row(f"engine, {size:,} SKU{'s' * (size > 1)}", address.name, "op/s", found[str(size)],
            found[str(USUAL)], f"{USUAL:,} SKUs", owed)
        for size, owed in OWED.items()
    ]  # fmt: skip
