"""A store that lost its history gets it back from the archive, and loses nothing that is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
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
from tests.archives import is_archived, new_database
from tests.robustness.archiving import (
    archived,
    archiving,
    matches,
)
from tests.robustness.load import check_promises, stocked, under_load
from tests.serving import (
    COMMITTED,
    HELD,
    Client,
    Failure,
    outcome,
    seconds,
    serving,
    unique,
    until,
)


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
