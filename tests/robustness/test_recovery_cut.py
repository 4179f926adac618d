"""A recovery that is cut off, and servers and stores that were: the next start makes all whole."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from holdfast_server.ledger.archive import Archive
from holdfast_server.stores.redis.rebuilding import RedisRebuilding
from tests.archives import sqlite_url
from tests.robustness.archiving import (
    archived,
    archiving,
    matches,
)
from tests.robustness.load import check_promises
from tests.robustness.processes import server_process
from tests.serving import (
    HELD,
    connected,
    seconds,
    serving,
    unique,
    until,
)

STEPS = ("seal", "discard", "put", "put_scores", "put_ended", "exchange", "decide", "open")


@pytest.mark.parametrize("step", STEPS)
async def test_a_recovery_that_is_broken_off_is_finished_by_the_next(
    step: str, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with archiving(tmp_path, redis_url=valkey_url) as server:
        sku = await server.put(10)
        await server.reserve(sku, 2, ttl=seconds(600))
        await archived(server)
    async with Redis.from_url(valkey_url) as store:
        await store.flushall()
    only_here = unique()
    async with serving(redis_url=valkey_url, on_rollback="new-epoch") as other:
        await other.put(5, sku=sku)
        await other.reserve(sku, 4, reservation_id=only_here, ttl=seconds(600))

    async def broken(*_arguments: Any, **_named: Any) -> Any:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(RedisRebuilding, step, broken)
        with pytest.raises(Cut):
            async with archiving(tmp_path, redis_url=valkey_url):
                pass
    async with archiving(tmp_path, redis_url=valkey_url) as server:
        level = await server.level(sku)
        assert (level.on_hand, level.held) == (15, 6)
        assert (await server.reservation(only_here)).state == HELD
        await check_promises(server)
        await matches(tmp_path, server)
        async with Redis.from_url(valkey_url) as store:
            assert not await store.keys("*restore*")


class Cut(Exception):
    """A power failure, as far as a test can make one in its own process."""


KILLED_AT = """
import os, sys
from holdfast_server.cli import main
from holdfast_server.stores.redis.rebuilding import RedisRebuilding
setattr(RedisRebuilding, sys.argv.pop(1), lambda *_, **__: os.kill(os.getpid(), 9))
main()
"""


@pytest.mark.parametrize("step", ["exchange", "open"])
async def test_a_server_killed_in_a_recovery_is_followed_by_one_that_ends_it(
    step: str, valkey_url: str, tmp_path: Path
) -> None:
    async with archiving(tmp_path, redis_url=valkey_url) as server:
        sku = await server.put(10)
        held = await server.reserve(sku, 2, ttl=seconds(600))
        await archived(server)
    async with Redis.from_url(valkey_url) as store:
        await store.flushall()
    serve = ("serve", "--data", str(tmp_path), "--redis-url", valkey_url, "--listen", "127.0.0.1:0")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED_AT, step, *serve)
    assert await process.wait() == -signal.SIGKILL
    async with archiving(tmp_path, redis_url=valkey_url) as server:
        assert await server.reservation(held.reservation.reservation_id) == held.reservation
        await check_promises(server)
        await matches(tmp_path, server)


async def test_a_server_killed_with_its_store_in_memory_has_all_that_was_archived(
    tmp_path: Path,
) -> None:
    settings = {"archive": "sqlite", "data": str(tmp_path), "durability": "memory"}
    name = unique()
    async with server_process(**settings) as process:
        target = (await process.logged("serving"))["target"]
        async with connected(target) as client:
            sku = await client.put(10)
            held = await client.reserve(sku, 3, reservation_id=name, ttl=seconds(600))

        async def is_archived() -> bool:
            async with Archive.open(sqlite_url(tmp_path)) as archive:
                return (await archive.archived()).sequence >= held.sequence

        await until(is_archived)
        await process.kill()
    async with server_process(**settings) as process:
        report = await process.logged("store recovered")
        assert (report["found"], report["archived"]) == (0, held.sequence)
        async with connected((await process.logged("serving"))["target"]) as client:
            assert await client.reservation(name) == held.reservation
            await check_promises(client)


async def test_a_torn_log_of_the_store_is_made_whole(tmp_path: Path) -> None:
    settings = {"archive": "sqlite", "data": str(tmp_path), "durability": "always"}
    async with archiving(tmp_path, durability="always") as server:
        sku = await server.put(10)
        held = [(await server.reserve(sku, ttl=seconds(600))).reservation for _ in range(4)]
        await archived(server)
    (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    content = log.read_bytes()
    log.write_bytes(content[: content.index(held[1].reservation_id.encode()) + 5])
    async with server_process(**settings) as process:
        await process.logged("store recovered")
        async with connected((await process.logged("serving"))["target"]) as client:
            for each in held:
                assert await client.reservation(each.reservation_id) == each
            assert (await client.level(sku)).held == 4
            await check_promises(client)
