"""A store that lost its history gets it back from the archive, and loses nothing that is kept."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import create_engine, select
from structlog.testing import capture_logs

from holdfast.v1 import stock_pb2
from holdfast_server.ledger import schema
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.archiver import Archiver
from holdfast_server.ledger.comparing import compare
from holdfast_server.stores.redis.rebuilding import RedisRebuilding
from tests.archives import is_archived, new_database, sqlite_url
from tests.robustness.load import check_promises, stocked, under_load
from tests.robustness.processes import server_process
from tests.serving import (
    COMMITTED,
    HELD,
    Client,
    Failure,
    Serving,
    connected,
    outcome,
    seconds,
    serving,
    unique,
    until,
)


@asynccontextmanager
async def archiving(folder: Path, **settings: Any) -> AsyncIterator[Serving]:
    """Run a server with an archive in a folder, that recovers."""
    async with serving(**{"archive": "sqlite", "data": str(folder), **settings}) as server:
        yield server


async def archived(server: Serving) -> None:
    """Wait until all that was decided is archived."""
    kept = server.server.kept
    assert kept is not None
    assert await kept.progress.wait((await server.head()).sequence, 30)


async def answered(client: Client, sku: str) -> None:
    """Wait until the server answers again."""

    async def is_answered() -> bool:
        return not isinstance(await outcome(client.level(sku)), Failure)

    await until(is_answered)


@contextmanager
def unarchived(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the archiver get nothing during the block."""

    async def nothing(_self: Archiver, _at: Any) -> list[bytes]:
        await asyncio.sleep(0.05)
        return []

    with monkeypatch.context() as patch:
        patch.setattr(Archiver, "_news", nothing)
        yield


async def state(url: str) -> list[Any]:
    """Return all that a batch is decided by."""
    async with Redis.from_url(url) as client:
        store: Any = client
        return [
            await store.hgetall("{c0}:items"),
            await store.hgetall("{c0}:holds"),
            await store.zrange("{c0}:skus", 0, -1),
            await store.zrange("{c0}:expiry", 0, -1, withscores=True),
        ]


async def copied(store: Any) -> dict[bytes, bytes]:
    return {key: await store.dump(key) for key in await store.keys("{c0}:*") if b"lock" not in key}


async def replaced(store: Any, saved: dict[bytes, bytes]) -> None:
    """Put a store back to what it was, as a failover to a stale replica does."""
    pipe = store.pipeline(transaction=True)
    for key in await store.keys("{c0}:*"):
        if b"lock" not in key:
            pipe.unlink(key)
    for key, value in saved.items():
        pipe.restore(key, 0, value)
    await pipe.execute()


def reviews(folder: Path) -> list[Any]:
    engine = create_engine(f"sqlite:///{folder / 'archive.db'}")
    with engine.connect() as connection:
        found = list(connection.execute(select(schema.reviews)))
    engine.dispose()
    return found


async def matches(folder: Path, server: Serving) -> None:
    """Check that archive and store have the same state, when the archive has all."""
    async with Archive.open(sqlite_url(folder)) as archive:
        await is_archived(archive, server.url)


# ---- Lost ----


async def test_an_emptied_store_is_what_it_was(store_url: str, tmp_path: Path) -> None:
    async with archiving(tmp_path, redis_url=store_url, hold_budget=1_000) as server:
        skus = await stocked(server)
        name, sold = unique(), unique()
        await server.reserve(skus[0], 3, reservation_id=name, ttl=seconds(600))
        await server.reserve(skus[1], 2, reservation_id=sold)
        await server.commit(sold)
        await server.adjust(skus[2], 5, "east")
        await archived(server)
        before, head = await state(store_url), await server.head()
        async with Redis.from_url(store_url) as store:
            await store.flushall()
        await answered(server, skus[0])
        assert await state(store_url) == before
        found = await server.head()
        assert found.epoch > head.epoch
        assert found.sequence == head.sequence
        again = await server.reserve(skus[0], 3, reservation_id=name, ttl=seconds(600))
        assert (again.replayed, again.reservation.state) == (True, HELD)
        assert (await server.commit(sold)).replayed
        assert (await server.commit(name)).reservation.state == COMMITTED
        await check_promises(server)
        await matches(tmp_path, server)


async def test_an_emptied_store_is_made_anew_from_postgresql(
    valkey_url: str, tmp_path: Path, postgres: str
) -> None:
    url = await new_database(postgres)
    async with archiving(tmp_path, archive=url, redis_url=valkey_url, hold_budget=1_000) as server:
        skus = await stocked(server)
        async with under_load(server, skus=skus) as load:
            await load.after(100)
        name = unique()
        await server.reserve(skus[0], reservation_id=name, ttl=seconds(600))
        await archived(server)
        async with Redis.from_url(valkey_url) as store:
            await store.flushall()
        await answered(server, skus[0])
        assert (await server.commit(name)).reservation.state == COMMITTED
        await check_promises(server, load.acknowledged)
        async with Archive.open(url) as archive:
            await is_archived(archive, valkey_url)
            assert not (await compare(archive)).differences


async def test_a_store_that_is_wiped_under_load_keeps_what_was_archived(
    valkey_url: str, tmp_path: Path
) -> None:
    settings = {"redis_url": valkey_url, "durability": "archived"}
    async with archiving(tmp_path, **settings) as server:
        skus = await stocked(server)
        async with under_load(server, skus=skus) as load:
            await load.after(200)
            async with Redis.from_url(valkey_url) as store:
                await store.flushall()
            await load.after(200)
        await check_promises(server, load.acknowledged)
        await matches(tmp_path, server)


async def test_a_store_that_comes_back_older_is_made_new(store_url: str, tmp_path: Path) -> None:
    async with (
        archiving(tmp_path, redis_url=store_url) as server,
        Redis.from_url(store_url) as store,
    ):
        sku = await server.put(10)
        await archived(server)
        saved = await copied(store)
        held = [(await server.reserve(sku, ttl=seconds(600))).reservation for _ in range(3)]
        await archived(server)
        await replaced(store, saved)
        await answered(server, sku)
        for each in held:
            assert await server.reservation(each.reservation_id) == each
        await check_promises(server)
        await matches(tmp_path, server)


async def test_what_even_the_archive_had_not_got_begins_a_new_epoch(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        archiving(tmp_path, redis_url=store_url) as server,
        Redis.from_url(store_url) as store,
    ):
        sku = await server.put(10)
        await archived(server)
        saved, head = await copied(store), await server.head()
        with unarchived(monkeypatch), capture_logs() as logs:
            await server.reserve(sku)
            await replaced(store, saved)
            await answered(server, sku)
        found = await server.head()
        assert (found.epoch > head.epoch, found.sequence) == (True, head.sequence)
        assert [line["event"] for line in logs].count("acknowledged history is lost") == 1
        await server.reserve(sku)
        await check_promises(server)
        await matches(tmp_path, server)


async def test_an_archive_behind_its_store_is_no_trouble(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with archiving(tmp_path, redis_url=store_url) as server:
        sku = await server.put(10)
        await archived(server)
        with unarchived(monkeypatch):
            held = await server.reserve(sku)
            head = await server.head()
    async with archiving(tmp_path, redis_url=store_url) as server:
        assert await server.head() == head
        assert await server.reservation(held.reservation.reservation_id) == held.reservation
        await matches(tmp_path, server)


# ---- Another past ----


async def test_what_the_archive_lacks_is_decided_again_or_reviewed(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sold, unsold, gone, late = (unique() for _ in range(4))
    async with (
        archiving(tmp_path, redis_url=store_url) as server,
        Redis.from_url(store_url) as store,
    ):
        sku, scarce = await server.put(10), await server.put(1)
        await server.reserve(sku, 2, reservation_id=late, ttl=seconds(600))
        await archived(server)
        saved = await copied(store)
        await server.reserve(scarce, reservation_id=unique(), ttl=seconds(600))
        for _ in range(6):
            await server.adjust(sku, 1)
        await archived(server)
    # A failover to a stale replica, on which a server without an archive goes on.
    async with Redis.from_url(store_url) as store:
        await replaced(store, saved)
    async with serving(redis_url=store_url, on_rollback="new-epoch") as other:
        await other.reserve(sku, 3, reservation_id=sold)
        await other.commit(sold)
        await other.reserve(sku, reservation_id=unsold, ttl=seconds(600))
        await other.stock.Release(stock_pb2.ReleaseRequest(reservation_id=unsold))
        await other.commit(late)
        await other.reserve(scarce, reservation_id=gone)
        await other.commit(gone)
        await other.adjust(sku, 7, "west")
    with capture_logs() as logs:
        async with archiving(tmp_path, redis_url=store_url) as server:
            assert (await server.reservation(sold)).state == COMMITTED
            assert (await server.reservation(late)).state == COMMITTED
            assert isinstance(await outcome(server.reservation(unsold)), Failure)
            level = await server.level(sku)
            assert (level.on_hand, level.committed, level.held) == (23, 5, 0)
            assert (await server.level(scarce)).committed == 0
            await check_promises(server)
            await matches(tmp_path, server)
    (told,) = [line for line in logs if line["event"] == "store recovered"]
    assert (told["applied"], told["ended"], told["reviewed"]) == (4, 1, 2)
    found = reviews(tmp_path)
    assert {(each.reason, each.reservation_id, each.sku, each.units) for each in found} == {
        ("recovery", gone, scarce, 1)
    }
    assert all(each.due_ms - each.opened_ms == 24 * 3_600_000 for each in found)


# ---- Broken off ----

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
