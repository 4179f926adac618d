"""What a batch costs inside the store, by its size, and whether a FUNCTION would cost less.

The time is the store's own count of what it spent executing the command (INFO commandstats),
so neither the network nor this process is in it.  The library holds the very text of the script,
and runs on the same cell in turns with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha1
from itertools import islice
from time import perf_counter
from typing import Any

import msgpack

from holdfast_bench.measure import Measurement, Plan, Row, take_turns
from holdfast_bench.stores import CELL, Cell, StoreAddress, check, opened
from holdfast_bench.traffic import operations
from holdfast_bench.workload import catalogue
from holdfast_server.kernel.source import flatten, script
from holdfast_server.kernel.wire import decode_batch, encode_batch
from holdfast_server.model import Operation

SIZES = (1, 8, 64, 128, 256)
SIZES_COMPARED = (1, 8, 64, 128)
ENTRY = "return execute()\n"
REGISTRATION = """
local function call(keys, args)
  KEYS, ARGV = keys, args
  return execute()
end
redis.register_function('NAME', call)
redis.register_function{ function_name = 'NAME_oom', callback = call, flags = { 'allow-oom' } }
"""


def library() -> tuple[str, str]:
    """Return the name of the script's FUNCTION library, versioned by its content, and its text.

    The script's KEYS and ARGV become locals that each call sets.  The library registers the
    function and, as `<name>_oom`, its twin that also runs when the store's memory is full.
    """
    body = flatten("redis/execute").rstrip() + "\n"
    if not body.endswith(ENTRY):
        raise ValueError("the script no longer ends by calling execute()")
    name = f"holdfast_{sha1(body.encode(), usedforsecurity=False).hexdigest()[:8]}"
    kernel = f"#!lua name={name}\nlocal KEYS, ARGV\n{body.removesuffix(ENTRY)}"
    return name, kernel + REGISTRATION.replace("NAME", name)


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


async def _callers(cell: Cell, skus: list[str]) -> dict[str, _Caller]:
    name, text = library()
    await cell.client.execute_command("FUNCTION", "LOAD", "REPLACE", text)
    sha = await cell.client.script_load(script())
    traffic = operations(skus)
    return {"EVALSHA": _Caller(cell, "EVALSHA", sha, traffic),
            "FCALL": _Caller(cell, "FCALL", name, traffic)}  # fmt: skip


async def run(plan: Plan, address: StoreAddress) -> list[Row]:
    """Measure script microseconds an operation, and FCALL against EVALSHA."""
    skus = catalogue(1_000)
    async with opened(address, CELL) as cell:
        await cell.put_on_sale(skus)
        callers = await _callers(cell, skus)
        contestants: dict[str, Any] = {
            f"{command} {size}": caller.us_per_operation(size, plan.seconds / 2)
            for size in SIZES
            for command, caller in callers.items()
            if command == "EVALSHA" or size in SIZES_COMPARED
        }
        found = await take_turns(contestants, plan)
        await cell.client.execute_command("FUNCTION", "DELETE", callers["FCALL"].name)
    rows = [
        Row(f"script time, batch {size}", address.name, "us/op", found[f"EVALSHA {size}"])
        for size in SIZES
    ]
    return rows + [
        Row(f"function time, batch {size}", address.name, "us/op", found[f"FCALL {size}"],
            found[f"EVALSHA {size}"], "EVALSHA")
        for size in SIZES_COMPARED
    ]  # fmt: skip
