"""Over gRPC: Pipeline against unary calls, unary Reserve against an empty echo, in processes.

Pipeline owes 8 times the operations of unary Reserve, and unary Reserve 0.6 of what grpc.aio can
do at all: a server with the same options whose method returns the bytes it was sent, called by the
same client with the same requests.  CPU is what the server process used an operation.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from subprocess import PIPE
from typing import NamedTuple

import psutil

from holdfast_bench.calling import CALLERS, FRAME, SKUS
from holdfast_bench.measure import Measurement, Plan, Row, Series, take_turns
from holdfast_bench.stores import CELL, Cell, StoreAddress, opened
from holdfast_bench.workload import catalogue

PIPELINE_OWED, UNARY_OWED = 8, 0.6


class Server(NamedTuple):
    """A server in a process of its own."""

    target: str
    process: psutil.Process

    @property
    def cpu_s(self) -> float:
        """Return the processor time it has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    @property
    def resident_mib(self) -> float:
        """Return its resident memory."""
        return float(self.process.memory_info().rss / (1 << 20))


@asynccontextmanager
async def served(what: str, cell: int = CELL, archive: str = "off") -> AsyncIterator[Server]:
    """Run a server of `holdfast_bench.serving` in a process of its own."""
    command = (sys.executable, "-m", "holdfast_bench.serving", what, str(cell), archive)
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        target = (await process.stdout.readline()).decode().strip()
        yield Server(target, psutil.Process(process.pid))
    finally:
        process.stdin.close()
        await process.wait()


async def called(kind: str, target: str, seconds: float) -> tuple[float, int]:
    """Return operations a second, and how many were done in all.

    The client's gRPC is as it comes: what the server's package sets for its own is not passed on.
    """
    command = (sys.executable, "-m", "holdfast_bench.calling", kind, target, str(seconds))
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environment)
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the {kind} client failed")
    rate, done = output.split()
    return float(rate), int(done)


class _Runs:
    """Measures operations a second, and keeps the server's CPU beside them."""

    def __init__(self, plan: Plan, cell: Cell) -> None:
        self._plan, self._cell = plan, cell
        self._cpu_us: dict[str, list[float]] = defaultdict(list)

    def cpu(self, kind: str) -> Series:
        """Return the server's CPU an operation, the mean of a round's two turns."""
        turns = self._cpu_us[kind]
        pairs = zip(turns[::2], turns[1::2], strict=True)
        return Series(tuple((there + back) / 2 for there, back in pairs))

    def of(self, kind: str, server: Server) -> Measurement:
        """Return the measurement of one kind of call."""

        async def measure() -> float:
            began = server.cpu_s
            rate, done = await called(kind, server.target, self._plan.seconds)
            self._cpu_us[kind].append((server.cpu_s - began) / done * 1e6)
            await self._cell.forget()
            return rate

        return measure


async def run(plan: Plan, address: StoreAddress) -> list[Row]:
    """Measure the three kinds of call in turns."""
    async with opened(address, CELL) as cell, served("echo") as echo:
        await cell.put_on_sale(catalogue(SKUS))
        async with served(address.url) as server:
            runs = _Runs(plan, cell)
            servers = {"echo": echo, "reserve": server, "pipeline": server}
            found = await take_turns({kind: runs.of(kind, servers[kind]) for kind in servers}, plan)
            resident = Series((server.resident_mib,))
    return [
        Row(f"Pipeline, frames of {FRAME}", address.name, "op/s", found["pipeline"],
            found["reserve"], "unary Reserve", PIPELINE_OWED),
        Row(f"unary Reserve, {CALLERS} callers", address.name, "op/s", found["reserve"],
            found["echo"], "empty echo", UNARY_OWED),
        Row("server CPU, Pipeline", address.name, "us/op", runs.cpu("pipeline"),
            runs.cpu("reserve"), "unary Reserve"),
        Row("server CPU, unary Reserve", address.name, "us/op", runs.cpu("reserve"),
            runs.cpu("echo"), "empty echo"),
        Row("server resident memory", address.name, "MiB", resident),
    ]  # fmt: skip
