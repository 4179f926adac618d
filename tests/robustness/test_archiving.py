"""The ledger goes into the archive whatever breaks: nothing lost, nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from holdfast.v1 import ledger_pb2, stock_pb2, types_pb2
from holdfast_server.errors import Fenced
from holdfast_server.ledger.archive import Archive
from holdfast_server.stores.redis.keeper import RedisKeeper
from tests.archives import is_archived, sqlite_url
from tests.robustness.archiving import (
    archiving,
    locked,
    stream_len,
)
from tests.robustness.load import check_promises, stocked, under_load
from tests.robustness.processes import free_address, server_process
from tests.serving import (
    COMMITTED,
    Client,
    Failure,
    connected,
    failure,
    outcome,
    seconds,
    serving,
    unique,
    until,
)

KILLS, STEPS = 2, 150


# ---- In order, exactly once ----


async def test_what_is_decided_is_archived(store_url: str, tmp_path: Path) -> None:
    async with archiving(tmp_path, redis_url=store_url) as server:
        skus = await stocked(server)
        async with under_load(server, skus=skus) as load:
            await load.after(400)
        async with Archive.open(sqlite_url(tmp_path)) as archive:
            await is_archived(archive, store_url)
        await check_promises(server, load.acknowledged)


async def test_a_killed_server_archives_on_where_it_stood(valkey_url: str, tmp_path: Path) -> None:
    settings = {"listen": free_address(), "data": str(tmp_path), "redis_url": valkey_url}
    settings["archive"] = "sqlite"
    async with connected(settings["listen"]) as client:
        async with server_process(**settings):
            skus = await stocked(client)
        async with under_load(client, skus=skus) as load:
            for _ in range(KILLS):
                async with server_process(**settings) as server:
                    await load.after(STEPS)
                    await server.kill()
            async with server_process(**settings):
                await load.finish()
                async with Archive.open(sqlite_url(tmp_path)) as archive:
                    await is_archived(archive, valkey_url)
                await check_promises(client, load.acknowledged)


async def test_one_of_two_servers_archives_and_the_other_takes_over(
    valkey_url: str, tmp_path: Path
) -> None:
    settings = {"archive": "sqlite", "data": str(tmp_path), "redis_url": valkey_url}
    async with server_process(**settings) as first:
        await first.logged("leading")
        async with archiving(tmp_path, redis_url=valkey_url) as server:
            assert server.server.kept is not None
            sku = await server.put(10)
            held = await server.reserve(sku)
            assert await server.server.kept.progress.wait(
                held.sequence, 10
            )  # it is told by the other
            assert not server.server.kept.leadership.is_leading
            await first.stop()
            held = await server.reserve(sku)
            assert await server.server.kept.progress.wait(held.sequence, 30)
            assert server.server.kept.leadership.is_leading
            async with Archive.open(sqlite_url(tmp_path)) as archive:
                await is_archived(archive, valkey_url)


async def test_a_leader_that_wakes_up_late_is_refused(store_url: str) -> None:
    keeper = RedisKeeper(store_url)
    async with serving(redis_url=store_url) as server:
        await server.put(10)
        head = await server.head()
        old, new = await keeper.claim(), await keeper.claim()
        assert new > old
        with pytest.raises(Fenced, match=f"FENCED {new}"):
            await keeper.note_archived(old, head.epoch, head.sequence, keep=0)
        assert (await keeper.archived()).sequence == 0
        await keeper.note_archived(new, head.epoch, head.sequence, keep=0)
        assert await keeper.archived() == (head.epoch, head.sequence)
    await keeper.aclose()


# ---- The archive is away ----


async def test_nothing_is_trimmed_before_it_is_archived(valkey_url: str, tmp_path: Path) -> None:
    async with archiving(tmp_path, redis_url=valkey_url, ledger_keep=0) as server:
        sku = await server.put(100)
        kept = server.server.kept
        assert kept is not None
        assert await kept.progress.wait(2, 10)
        async with locked(tmp_path):
            for _ in range(50):
                held = await server.reserve(sku)
            assert kept.progress.sequence < held.sequence
            assert len(await server.entries(3)) == 50
        assert await kept.progress.wait(held.sequence, 30)
        async with Archive.open(sqlite_url(tmp_path)) as archive:
            await is_archived(archive, valkey_url)

        async def is_trimmed() -> bool:
            await server.reserve(sku)
            return await stream_len(valkey_url) < 50

        await until(is_trimmed)


async def test_a_ledger_that_begins_after_the_archive_is_refused(
    valkey_url: str, tmp_path: Path
) -> None:
    async with serving(redis_url=valkey_url) as server:
        sku = await server.put(10)
        await server.reserve(sku)
    async with Redis.from_url(valkey_url) as store:
        await store.xtrim("{c0}:ledger", maxlen=1, approximate=False)
    settings = {"archive": "sqlite", "data": str(tmp_path), "redis_url": valkey_url}
    async with server_process(**settings, ledger_keep=0) as process:
        said = await process.logged("cannot archive")
        assert (said["kind"], said["fault"]) == ("ArchiveGap", "entries 1 to 2 are missing")
        assert await stream_len(valkey_url) == 1


async def reserve_until_refused(server: Client, sku: str) -> tuple[list[str], Failure]:
    """Return what was reserved, and why no more was."""
    names: list[str] = []
    while True:
        said = await outcome(server.reserve(sku, reservation_id=unique()))
        if isinstance(said, Failure):
            return names, said
        names.append(said.reservation.reservation_id)


async def test_beyond_the_backlog_reserve_waits_and_sales_go_on(tmp_path: Path) -> None:
    async with archiving(tmp_path, archive_backlog_max=20) as server:
        sku = await server.put(1_000_000)
        async with locked(tmp_path):
            names, refused = await reserve_until_refused(server, sku)
            assert len(names) > 15
            assert (refused.reason, refused.retry_after_ms) == ("OVERLOADED", 2_000)
            assert "ledger entries are not archived, the limit is 20" in refused.message
            assert (await failure(server.adjust(sku, 1))).reason == "OVERLOADED"
            sold = await server.commit(names[0])
            assert sold.reservation.state == COMMITTED

        async def is_taken() -> bool:
            return not isinstance(await outcome(server.reserve(sku)), Failure)

        await until(is_taken)


async def test_a_backlog_that_is_only_counted_refuses_nothing(tmp_path: Path) -> None:
    settings = {"archive_backlog_max": 1, "audit_overflow_mutations": "drop-and-count"}
    async with archiving(tmp_path, **settings) as server:
        sku = await server.put(1_000_000)
        backlog = server.server.batcher.backlog
        async with locked(tmp_path):

            async def is_counted() -> bool:
                await server.reserve(sku)
                return backlog.taken > 1

            await until(is_counted)
        head = await server.head()
        assert server.server.kept is not None
        assert await server.server.kept.progress.wait(head.sequence, 30)


# ---- Answers that wait for it ----


async def test_what_is_acknowledged_is_archived(tmp_path: Path) -> None:
    async with archiving(tmp_path, durability="archived") as server:
        sku = await server.put(50)
        async with Archive.open(sqlite_url(tmp_path)) as archive:
            for _ in range(20):
                held = await server.reserve(sku)
                assert (await archive.archived()).sequence >= held.sequence


async def test_an_answer_that_cannot_be_archived_is_unknown_until_it_is(tmp_path: Path) -> None:
    settings = {"durability": "archived", "store_timeout_ms": 1_000}
    async with archiving(tmp_path, **settings) as server:
        sku, name = await server.put(10), unique()
        async with locked(tmp_path):
            refused = await failure(server.reserve(sku, reservation_id=name))
            assert refused.reason == "OUTCOME_UNKNOWN"
            refused = await failure(server.reserve(sku, reservation_id=name))
            assert refused.reason == "OUTCOME_UNKNOWN"  # a replay waits too
            assert (await server.level(sku)).held == 1

        async def is_answered() -> bool:
            said = await outcome(server.reserve(sku, reservation_id=name))
            if isinstance(said, Failure):
                assert said.reason == "OUTCOME_UNKNOWN"
                return False
            return bool(said.replayed)

        await until(is_answered)


# ---- What only the archive has ----


async def test_the_ledger_is_whole_over_the_seam(valkey_url: str, tmp_path: Path) -> None:
    async with archiving(tmp_path, redis_url=valkey_url, ledger_keep=0) as server:
        skus = await stocked(server)
        async with under_load(server, skus=skus) as load:
            await load.after(300)

        async def is_trimmed() -> bool:
            await server.put(1)
            async with Redis.from_url(valkey_url) as store:
                oldest: Any = await store.xrange("{c0}:ledger", count=1)
            return not oldest or int(oldest[0][0].split(b"-")[0]) > 100

        await until(is_trimmed)
        head = await server.head()
        assert head.first_sequence == 1
        entries = await server.entries()
        assert [entry.sequence for entry in entries][: head.sequence] == list(
            range(1, head.sequence + 1)
        )
        page = await server.ledger.ListEntries(ledger_pb2.ListEntriesRequest(page_size=70))
        assert list(page.entries) == entries[:70]
        rest = await server.ledger.ListEntries(
            ledger_pb2.ListEntriesRequest(page_size=200, page_token=page.next_page_token)
        )
        assert list(rest.entries) == entries[70:270]
        await check_promises(server, load.acknowledged)


async def reservation(client: Client, name: str, principal: str) -> Any:
    return await client.stock.GetReservation(
        stock_pb2.GetReservationRequest(reservation_id=name),
        metadata=(("holdfast-principal", principal),),
    )


async def test_a_reservation_outlives_its_retention(valkey_url: str, tmp_path: Path) -> None:
    async with archiving(tmp_path, redis_url=valkey_url, retention_ms=1_000) as server:
        sku, name = await server.put(10), unique()
        await server.reserve(sku, reservation_id=name, ttl=seconds(5))
        sold = await server.commit(name)

        async def is_purged() -> bool:
            await server.put(1)
            async with Redis.from_url(valkey_url) as store:
                cell: Any = store
                return not await cell.hexists("{c0}:holds", name)

        await until(is_purged)
        kept = server.server.kept
        assert kept is not None
        assert await kept.progress.wait(sold.sequence, 10)
        found = await server.stock.GetReservation(
            stock_pb2.GetReservationRequest(reservation_id=name)
        )
        assert found.source == types_pb2.SOURCE_AUTHORITY
        assert found.reservation == sold.reservation
        unknown = await failure(reservation(server, unique(), "anonymous"))
        assert unknown.reason == "UNKNOWN_RESERVATION"
