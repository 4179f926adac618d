"""Very many watches: none leaves anything behind, and none starves another."""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil

from holdfast_server.watch.levels import Slot
from holdfast_server.watch.watcher import Watcher
from tests.robustness.processes import server_process
from tests.serving import Client, Serving, connected, seconds, serving, until
from tests.watching import HEARTBEAT, Watching, check_gapless, put_many

# Set it to 100000 for the proof by hand; it prints what the server's memory was before and after.
OPENED = int(os.environ.get("HOLDFAST_WATCHES_OPENED", "600"))
WARMING, AT_ONCE = 300, 50
RSS_GROWTH_MAX = 16 << 20
READERS, IDLE, CHANGES = 100, 20, 10


def count_of(kind: type) -> int:
    gc.collect()
    return sum(isinstance(one, kind) for one in gc.get_objects())


async def open_and_leave(client: Client, sku: str, number: int) -> None:
    """Leave a watch at one of three moments: at once, after its first message, or paced."""
    fields: dict[str, Any] = {"min_interval": seconds(60)} if number % 3 == 2 else {}
    async with Watching(client, sku, f"none-{number}", **fields) as watch:
        if number % 3:
            await watch.first()


async def churn(client: Client, sku: str, count: int) -> None:
    """Open and leave so many watches, some at once."""
    for first in range(0, count, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, count))
        await asyncio.gather(*(open_and_leave(client, sku, number) for number in numbers))


async def at_rest(server: Serving, *, tasks: int = 1_000_000) -> int:
    """Wait until no watch is open, no call is served, no task is left; return the tasks there are.

    It waits for ever where one is left behind.
    """

    async def is_so() -> bool:
        names = [task.get_name() for task in asyncio.all_tasks()]
        has_calls = any(name.startswith("HandleExceptions") for name in names)
        return not has_calls and not len(server.server.hub) and len(names) <= tasks

    await until(is_so)
    return len(asyncio.all_tasks())


async def test_watches_that_are_left_leave_nothing_behind(tmp_path: Path) -> None:
    async with serving(data=str(tmp_path), durability="memory") as server:
        sku = await server.put(1)
        async with Watching(server, sku) as watch:
            await watch.first()
        tasks = await at_rest(server)
        before = count_of(Watcher), count_of(Slot)
        await churn(server, sku, AT_ONCE)
        async with connected(server.target) as dying, AsyncExitStack() as stack:
            for number in range(AT_ONCE):
                watch = Watching(dying, sku, f"none-{number}", min_interval=seconds(60))
                await (await stack.enter_async_context(watch)).first()
            await server.adjust(sku, 1)  # each now has a change that waits for its time
            await dying.channel.close()  # all at once, without a word
        await server.adjust(sku, 1)
        await at_rest(server, tasks=tasks)
        assert (count_of(Watcher), count_of(Slot)) == before


async def test_memory_does_not_grow_with_the_watches_opened(tmp_path: Path) -> None:
    async with server_process(data=str(tmp_path), durability="memory") as server:
        process = psutil.Process(server.pid)
        async with connected(str((await server.logged("serving"))["target"])) as client:
            sku = await client.put(1)
            await churn(client, sku, WARMING)
            before = process.memory_info().rss
            await churn(client, sku, OPENED)
            after = process.memory_info().rss
        print(
            f"{OPENED} watches opened and left: RSS {before >> 10} KiB before, {after >> 10} after"
        )
        assert after - before < RSS_GROWTH_MAX
        assert await server.stop() == 0


async def test_one_slow_watch_and_many_paced_ones_do_not_delay_another(tmp_path: Path) -> None:
    async with serving(data=str(tmp_path)) as server, AsyncExitStack() as stack:
        hot, quiet = await server.put(1), await server.put(1)
        await put_many(server, 601, length=128)
        stuck = await stack.enter_async_context(
            connected(server.target, ("grpc.http2.bdp_probe", 0))
        )
        await stack.enter_async_context(Watching(stuck))  # it never reads

        async def watch(*skus: str, **fields: Any) -> Watching:
            opened = await stack.enter_async_context(Watching(server, *skus, **fields))
            return await opened.first()

        readers = await asyncio.gather(watch(), *(watch(hot) for _ in range(READERS)))
        pace = {"min_interval": seconds(60)}
        paced = await asyncio.gather(*(watch(hot, **pace) for _ in range(READERS)))
        beats = {"heartbeat": seconds(1)}
        idle = await asyncio.gather(*(watch(quiet, **beats) for _ in range(IDLE)))
        for _ in range(CHANGES):
            last = await server.adjust(hot, 1)
        told = (*readers, *idle)
        await asyncio.gather(*(reader.until(last.level.revision) for reader in told))
        assert {kind for reader in idle for kind in reader.kinds[1:]} == {HEARTBEAT}
        assert [len(reader.messages) for reader in paced] == [1] * READERS
        blocked = [one for one in server.server.hub._watchers if one.writing_since]
        assert len(blocked) == 1  # all that time
        await check_gapless(server, readers[0])
        await check_gapless(server, readers[-1], skus=[hot])
