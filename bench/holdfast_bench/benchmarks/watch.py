"""Watch: fan-out against a bare server, and what watchers cost everybody else.

One change to all of 10,000 watchers of an item owes 0.7 of the messages a second of a bare grpc.aio
server whose streams write prepared bytes.  Reserve owes 0.9 of its rate without watches while
10,000 are idle, and while 100 that follow everything never read; what Pipeline keeps of its rate is
shown beside it.  An idle watch may take 40 KiB more of the server than an idle bare stream.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from subprocess import PIPE
from typing import Any

from holdfast_bench.benchmarks.rpc import Server, called, served
from holdfast_bench.measure import Measurement, Plan, Row, Series, take_turns
from holdfast_bench.stores import CELL, Cell, StoreAddress, opened
from holdfast_bench.workload import catalogue

FANOUT_OWED, RESERVE_OWED, IDLE_KIB_MAX = 0.7, 0.9, 40
WATCHES, CONNECTIONS, STALLED = 10_000, 50, 100
AUDIENCES = (100, 1_000, 10_000)
ROUNDS_A_TURN = 3
ROUNDS_OF_DELAY = 10
SKUS = 1_000
WATCHED = "SKU-WATCHED"  # nobody else reserves it
HEARTBEAT_S = "5"  # the default
QUIET_WATCH = (WATCHED, "60")  # no heartbeat in between, so that every arrival is a change
LINE_BYTES_MAX = 64 << 20
STALLING_S = 2.0
SETTLE_S = 1.0  # for the server to part with ten thousand streams


class _Audience:
    """The process that watches."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def ask(self, command: str) -> Any:
        """Return the answer to a command of `holdfast_bench.watching`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the watching process failed")
        return json.loads(line)


@asynccontextmanager
async def _watching(module: str, target: str, number: int, *watch: str) -> AsyncIterator[Process]:
    """Run a process that watches."""
    words = (target, str(number), str(min(number, CONNECTIONS)), *watch)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *words, stdin=PIPE, stdout=PIPE, limit=LINE_BYTES_MAX
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()
        await asyncio.sleep(SETTLE_S)


@asynccontextmanager
async def _held_open(target: str, number: int, sku: str, how: str) -> AsyncIterator[None]:
    """Hold watches open whose readers cost this machine next to nothing."""
    watch = (sku, HEARTBEAT_S, how)
    async with _watching("holdfast_bench.idling", target, number, *watch) as process:
        assert process.stdout is not None
        if not await process.stdout.readline():
            raise RuntimeError("the watches could not be opened")
        yield


@asynccontextmanager
async def _audience(target: str, number: int, *watch: str) -> AsyncIterator[_Audience]:
    """Run the process that tells what arrives."""
    async with _watching("holdfast_bench.watching", target, number, *watch) as process:
        yield _Audience(process)


@dataclass(frozen=True)
class _Place:
    """A server with a cell of its own, on which everything is on sale."""

    server: Server
    cell: Cell


@asynccontextmanager
async def _place(address: StoreAddress, number: int) -> AsyncIterator[_Place]:
    async with opened(address, number) as cell, served(address.url, number) as server:
        await cell.put_on_sale([*catalogue(SKUS), WATCHED])
        yield _Place(server, cell)


def _fanout(server: Server, *watch: str) -> Measurement:
    """Return the measurement of messages a second, one change at a time to all."""

    async def measure() -> float:
        async with _audience(server.target, WATCHES, *watch) as audience:
            await audience.ask("open")
            rounds: list[list[float]] = await audience.ask(f"rounds {ROUNDS_A_TURN + 1}")
        return median(len(arrivals) / max(arrivals) for arrivals in rounds[1:])

    return measure


def _reserve(kind: str, place: _Place, plan: Plan) -> dict[str, Measurement]:
    """Return the measurements of a kind of call: beside watches that are idle, or stalled."""

    async def beside(number: int, sku: str, how: str) -> float:
        async with _held_open(place.server.target, number, sku, how):
            if how == "stall":  # they take what fits into their windows first
                await called(kind, place.server.target, STALLING_S)
            return await _alone(kind, place, plan)

    return {
        "idle": lambda: beside(WATCHES, WATCHED, "read"),
        "stalled": lambda: beside(STALLED, "", "stall"),
    }


async def _alone(kind: str, place: _Place, plan: Plan) -> float:
    rate, _done = await called(kind, place.server.target, plan.seconds)
    await place.cell.forget()
    return rate


async def _beside_watches(plan: Plan, address: StoreAddress) -> list[Row]:
    """Measure calls on a server with watches, and on one that never had any."""
    rows = []
    async with _place(address, CELL) as quiet, _place(address, CELL + 1) as watched:
        for kind, title, owed in (
            ("reserve", "unary Reserve", RESERVE_OWED),
            ("pipeline", "Pipeline", None),
        ):
            alone = partial(_alone, kind, quiet, plan)
            found = await take_turns({"none": alone, **_reserve(kind, watched, plan)}, plan)
            rows += [
                Row(f"{title}, {audience}", address.name, "op/s", found[name], found["none"],
                    "none", owed)
                for name, audience in (
                    ("idle", f"{WATCHES:,} idle watchers"),
                    ("stalled", f"{STALLED} stalled watchers"),
                )
            ]  # fmt: skip
    return rows


async def _idle_kib(what: str, *watch: str) -> Series:
    """Return what an idle stream adds to a new server's resident memory."""
    async with served(what) as server:
        before = server.resident_mib
        async with _audience(server.target, WATCHES, *watch) as audience:
            await audience.ask("open")
            return Series(((server.resident_mib - before) * 1024 / WATCHES,))


async def _delays(server: Server, store: str) -> list[Row]:
    """Return rows of the time from a Reserve's start until a watcher has its change."""
    rows = []
    for number in AUDIENCES:
        async with _audience(server.target, number, *QUIET_WATCH) as audience:
            await audience.ask("open")
            rounds = await audience.ask(f"rounds {ROUNDS_OF_DELAY + 1}")
        delays = sorted(delay * 1000 for arrivals in rounds[1:] for delay in arrivals)
        rows += [
            Row(
                f"change to delivery, {number:,} watchers, {name}",
                store,
                "ms",
                Series((delays[min(len(delays) - 1, int(len(delays) * share))],)),
            )
            for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
        ]
    return rows


async def _memory(address: StoreAddress) -> Row:
    bare_kib = await _idle_kib("fanout")
    watch_kib = await _idle_kib(address.url, WATCHED, HEARTBEAT_S)
    over = Series((max(watch_kib.median - bare_kib.median, 0.01),))
    taken = f"taken beyond a bare stream's {bare_kib.median:.1f}"
    allowed = Series((float(IDLE_KIB_MAX),))
    return Row("memory an idle watcher may take", address.name, "KiB", allowed, over, taken, 1)


async def run(plan: Plan, address: StoreAddress) -> list[Row]:
    """Measure fan-out, the price of watches to others, memory and delays."""
    async with _place(address, CELL) as place, served("fanout") as bare:
        server = place.server
        contestants = {"holdfast": _fanout(server, *QUIET_WATCH), "bare": _fanout(bare)}
        found = await take_turns(contestants, plan)
        fanout = Row(f"fan-out to {WATCHES:,} watchers", address.name, "msg/s",
                     found["holdfast"], found["bare"], "bare streams", FANOUT_OWED)  # fmt: skip
        delays = await _delays(server, address.name)
        memory = await _memory(address)
    return [fanout, *await _beside_watches(plan, address), memory, *delays]
