"""What a batch costs inside the store, by its size: FCALL as the server calls it, and EVALSHA.

The time is the store's own count of what it spent executing the command (INFO commandstats),
so neither the network nor this process is in it.  Both run the same text, in turns on one cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import msgpack

from holdfast_bench.measure import Measurement, Plan, Row, take_turns
from holdfast_bench.stores import CELL, Cell, StoreAddress, check, opened
from holdfast_bench.traffic import operations
from holdfast_bench.workload import catalogue
from holdfast_server.kernel.source import library, script
from holdfast_server.kernel.wire import decode_batch, encode_batch
from holdfast_server.model import Operation

SIZES = (1, 8, 64, 128, 256)
SKUS = 1_000


@dataclass(frozen=True)
class _Caller:
    """Sends batches one after another by one command."""

    cell: Cell
    command: str
    name: str
    traffic: Iterator[Operation]

    async def send(self, batch: list[Operation]) -> None:
        """Send a batch and check every answer."""
        cell, packed = self.cell, msgpack.packb(encode_batch(batch))
        answer = await cell.client.execute_command(
            self.command, self.name, len(cell.keys), *cell.keys,
            cell.store.known.epoch, 0, 0, 900_000, len(batch), packed,
        )  # fmt: skip
        for outcome in decode_batch(batch, msgpack.unpackb(answer, raw=True)).outcomes:
            check(outcome)

    async def spent_us(self) -> int:
        """Return what the store has spent in the command so far."""
        stats = await self.cell.client.info("commandstats")
        return int(stats.get(f"cmdstat_{self.command.lower()}", {"usec": 0})["usec"])

    def us_per_operation(self, size: int, seconds: float) -> Measurement:
        """Return the measurement of batches of one size."""

        async def measure() -> float:
            before, count, ends_at = await self.spent_us(), 0, perf_counter() + seconds
            while perf_counter() < ends_at:
                await self.send(list(islice(self.traffic, size)))
                count += size
            return (await self.spent_us() - before) / count

        return measure


async def run(plan: Plan, address: StoreAddress) -> list[Row]:
    """Measure microseconds an operation by both commands."""
    skus = catalogue(SKUS)
    async with opened(address, CELL) as cell:  # which loads the library
        await cell.put_on_sale(skus)
        names = {"FCALL": library().plain, "EVALSHA": await cell.client.script_load(script())}
        traffic = operations(skus)
        found = await take_turns(
            {
                f"{command} {size}": _Caller(cell, command, name, traffic).us_per_operation(
                    size, plan.seconds / 2
                )
                for size in SIZES
                for command, name in names.items()
            },
            plan,
        )
    return [
        Row(f"time in the store, batch {size}", address.name, "us/op", found[f"FCALL {size}"],
            found[f"EVALSHA {size}"], "EVALSHA")
        for size in SIZES
    ]  # fmt: skip
