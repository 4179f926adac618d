"""Run Holdfast or a peer in a process of its own, until standard input ends.

    python -m holdfast_bench.peers.serving NAME SKUS UNITS

The first line of its output is where it listens.  Each line `cpu` or `count` of its input is
answered with a line of JSON: the processor seconds of the server and of its store so far, or the
units on sale, sold, held and oversold (null from a peer that decides nothing).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from typing import Any

import psutil
import uvloop

from holdfast_bench.peers import echo, fronting
from holdfast_bench.peers.terms import Peer, Sale
from holdfast_bench.workload import catalogue
from holdfast_server.app import settle_heap

Sales = Callable[[], Awaitable[Mapping[str, Sale] | None]]
Opened = Callable[[Mapping[str, int]], AbstractAsyncContextManager[Peer]]

# Imported when asked for: nothing in the process but what it serves with.
PEERS = {
    "evalsha": ("evalsha", "opened"),
    "postgres": ("postgres", "durable"),
    "postgres-async": ("postgres", "quick"),
    "redlock": ("redlock", "one_master"),
    "redlock-3": ("redlock", "three_masters"),
    "unlocked": ("redlock", "unlocked"),
}
NAMES = ("holdfast", "echo", *PEERS)


async def _nothing() -> None:
    return None


@asynccontextmanager
async def _served(name: str, stock: Mapping[str, int]) -> AsyncIterator[tuple[str, Sales]]:
    if name == "holdfast":
        serve: Any = import_module("holdfast_bench.peers.holdfast").served
        async with serve(stock) as serving:
            yield serving
    elif name == "echo":
        async with fronting.served(echo.Echo()) as target:
            yield target, _nothing
    else:
        module, function = PEERS[name]
        opened: Opened = getattr(import_module(f"holdfast_bench.peers.{module}"), function)
        async with opened(stock) as peer, fronting.served(fronting.Front(peer)) as target:
            yield target, peer.sales


def counted(stock: Mapping[str, int], sales: Mapping[str, Sale] | None) -> dict[str, Any] | None:
    """Return the units over all SKUs; oversold is what each SKU has given away beyond its own."""
    if sales is None:
        return None
    return {
        "on_sale": sum(stock.values()),
        "sold": sum(sale.sold for sale in sales.values()),
        "held": sum(sale.held for sale in sales.values()),
        "oversold": sum(
            max(0, sale.sold + sale.held - stock.get(sku, 0)) for sku, sale in sales.items()
        ),
        "sold_by_sku": {sku: sale.sold for sku, sale in sales.items() if sale.sold},
    }


def _cpu() -> dict[str, float]:
    """Return the processor seconds of this process and of every process below it."""
    below = 0.0
    for process in psutil.Process().children(recursive=True):
        times = process.cpu_times()
        below += times.user + times.system + times.children_user + times.children_system
    return {"server": time.process_time(), "store": below}


async def _serve(name: str, stock: Mapping[str, int]) -> None:
    asked = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    async with _served(name, stock) as (target, sales):
        settle_heap()
        print(target, flush=True)
        while question := await asked.readline():
            answer = _cpu() if question == b"cpu\n" else counted(stock, await sales())
            print(json.dumps(answer), flush=True)


def _arguments() -> tuple[str, Mapping[str, int]]:
    parser = argparse.ArgumentParser(prog="python -m holdfast_bench.peers.serving")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("skus", type=int, help="how many: SKU-000000 and so on")
    parser.add_argument("units", type=int, help="of each of them")
    options = parser.parse_args()
    return options.name, dict.fromkeys(catalogue(options.skus), options.units)


if __name__ == "__main__":
    uvloop.run(_serve(*_arguments()))
