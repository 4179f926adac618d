"""Every answer without an entry reaches the archive exactly once, as it was answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from redis.asyncio import Redis

from holdfast.v1 import stock_pb2, types_pb2
from holdfast_server.errors import Fenced
from holdfast_server.ledger.archive import QUERIES, Archive
from holdfast_server.ledger.audit import AuditKind, AuditRecord, read_record
from holdfast_server.ledger.query_archiver import QueryArchiver
from holdfast_server.model import Context
from holdfast_server.rpc import messages
from holdfast_server.stores.redis.keeper import RedisKeeper
from tests.archives import sqlite_url
from tests.robustness.archiving import (
    audited,
    records,
)
from tests.robustness.processes import free_address, server_process
from tests.serving import connected, failure, lines, metadata, serving, unique, until

SAID = types_pb2.Context(agent_id="a", session_id="s", channel="web", rationale="it is red")


async def test_a_query_is_archived_as_it_was_answered(store_url: str, tmp_path: Path) -> None:
    async with audited(tmp_path, redis_url=store_url) as (server, archive):
        sku, gone = await server.put(7), unique()
        asked = stock_pb2.GetStockRequest(skus=[sku, gone], context=SAID)
        told = await server.stock.GetStock(asked, metadata=metadata("shopper"))
        (record,) = await records(archive, 2)
        assert (record.kind, record.id) == (AuditKind.QUERY, told.query_id)
        assert (record.principal, record.context.rationale) == ("shopper", "it is red")
        assert record.sequence == told.sequence
        level, missing = record.levels
        assert level is not None
        assert messages.level(level, record.time_ms) == told.levels[0]
        assert missing is None
        assert await archive.queries_of(told.query_id) == [record]
        assert await archive.queries_in("shopper", "s", before_ms=record.time_ms, limit=5) == [
            record
        ]


async def test_refusals_and_impossible_calls_are_archived(tmp_path: Path) -> None:
    async with audited(tmp_path) as (server, archive):
        sku, name = await server.put(1), unique()
        refused = await server.reserve(sku, 2, reservation_id=name, context=SAID)
        assert refused.HasField("refusal")
        assert (await failure(server.commit(unique()))).reason == "UNKNOWN_RESERVATION"
        decided, impossible = await records(archive, 3)
        assert (decided.id, decided.asked[0], decided.answered[0]) == (name, "Reserve", 10)
        assert decided.context.rationale == "it is red"
        assert (impossible.asked[0], impossible.answered[0]) == ("Commit", 22)


async def test_the_operations_of_a_pipeline_are_archived(tmp_path: Path) -> None:
    async with audited(tmp_path) as (server, archive):
        sku = await server.put(3)
        frame = stock_pb2.PipelineRequest()
        for tag in range(5):
            frame.operations.add(tag=tag).get_stock.skus.append(sku)
        frame.operations.add(tag=9).reserve.MergeFrom(
            stock_pb2.ReserveRequest(reservation_id=unique(), lines=lines((sku, 4)))
        )
        call = server.stock.Pipeline()
        await call.write(frame)
        answer: Any = await call.read()
        await call.done_writing()
        names = {result.get_stock.query_id for result in answer.results[:5]}
        assert len(names) == 5
        found = await records(archive, 7)
        assert {record.id for record in found if record.kind is AuditKind.QUERY} == names
        assert [record.kind for record in found].count(AuditKind.DECISION) == 1


async def test_a_killed_server_archives_each_query_once(valkey_url: str, tmp_path: Path) -> None:
    settings = {"listen": free_address(), "data": str(tmp_path), "redis_url": valkey_url}
    settings["archive"] = "sqlite"
    names: list[str] = []
    async with connected(settings["listen"]) as client:
        for _ in range(2):
            async with server_process(**settings) as process:
                sku = await client.put(3)
                asked = stock_pb2.GetStockRequest(skus=[sku])
                names += [(await client.stock.GetStock(asked)).query_id for _ in range(50)]
                async with Redis.from_url(valkey_url) as store:

                    async def is_written(store: Any = store) -> bool:
                        async with Archive.open(sqlite_url(tmp_path)) as archive:
                            done = (await archive.archived(QUERIES)).sequence
                        return done > 0 or await store.xlen("{c0}:queries") > 0

                    await until(is_written)
                await process.kill()
        async with (
            server_process(**settings),
            Archive.open(sqlite_url(tmp_path)) as archive,
        ):
            sku = await client.put(1)
            last = await client.stock.GetStock(stock_pb2.GetStockRequest(skus=[sku]))

            async def is_last_there() -> bool:
                return bool(await archive.queries_of(last.query_id))

            await until(is_last_there)
            found = [record.id for record in await records(archive, 1)]
    assert len(found) == len(set(found))
    assert set(found) <= {*names, last.query_id}
    assert found == sorted(found, key=[*names, last.query_id].index)


async def test_a_late_leader_drops_no_records(store_url: str) -> None:
    keeper = RedisKeeper(store_url)
    assert await keeper.queries("", count=5) is None
    assert await keeper.add_queries("s", 1, [b"a", b"b"]) == 1
    assert await keeper.add_queries("s", 2, [b"c"]) == 2
    old, new = await keeper.claim(), await keeper.claim()
    waiting = await keeper.queries("", count=1)
    assert waiting is not None
    assert waiting.records == [b"a", b"b"]
    with pytest.raises(Fenced):
        await keeper.drop_queries(old, waiting.mark)
    await keeper.drop_queries(new, waiting.mark)
    rest = await keeper.queries(waiting.mark, count=5)
    assert rest is not None
    assert rest.records == [b"c"]
    await keeper.drop_queries(new, rest.mark)
    assert await keeper.add_queries("s", 3, [b"d"]) == 1
    after = await keeper.queries(rest.mark, count=5)
    assert after is not None
    assert after.records == [b"d"]
    await asyncio.sleep(0)
    await keeper.aclose()


async def test_a_group_of_records_is_added_once(store_url: str) -> None:
    keeper = RedisKeeper(store_url)
    assert await keeper.last_mark() == ""
    assert await keeper.add_queries("one", 1, [b"a"]) == 1
    assert await keeper.add_queries("one", 1, [b"a"]) == 1
    assert await keeper.add_queries("other", 1, [b"b"]) == 2
    assert await keeper.add_queries("one", 2, []) == 2
    assert await keeper.add_queries("one", 2, [b"c"]) == 3
    waiting = await keeper.queries("", count=9)
    assert waiting is not None
    assert waiting.records == [b"a", b"b", b"c"]
    assert await keeper.last_mark() == waiting.mark
    await keeper.drop_queries(await keeper.claim(), waiting.mark)
    assert await keeper.last_mark() == waiting.mark
    await keeper.aclose()


def a_record(number: int) -> bytes:
    fields = (AuditKind.QUERY, number, f"q-{number}", 0, "shop", Context(), 1, number)
    return AuditRecord(*fields, 1, [["sku"], [b""]]).pack(0)


def grouped(number: int) -> dict[Any, Any]:
    return {"e": msgpack.packb([a_record(number)])}


async def archived_numbers(archive: Archive) -> list[int]:
    found = await archive.leaves(QUERIES, 0, 1_000)
    return [read_record(leaf).sequence for leaf in found]


@asynccontextmanager
async def leading(keeper: RedisKeeper, archive: Archive) -> AsyncIterator[None]:
    work = QueryArchiver(keeper, archive).lead(await keeper.claim())
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.parametrize("years", [1, -1])
async def test_a_stream_that_lost_its_end_is_archived_once(
    store_url: str, tmp_path: Path, years: int
) -> None:
    """Records 1 to 50 were archived; 1 to 40 are back and 51 is new, by a clock that jumped."""
    keeper, now_ms = RedisKeeper(store_url), 1_700_000_000_000
    later_ms = now_ms + years * 31_536_000_000
    async with Redis.from_url(store_url) as store, Archive.open(sqlite_url(tmp_path)) as archive:
        for number in range(1, 51):
            await store.xadd("{c0}:queries", grouped(number), id=f"{now_ms}-{number}")
        async with leading(keeper, archive):
            await until(lambda: is_archived(archive, 50))
        await store.delete("{c0}:queries")
        if years > 0:
            for number in range(1, 41):
                await store.xadd("{c0}:queries", grouped(number), id=f"{now_ms}-{number}")
        else:  # all of them got new ids, which are below those of before
            for number in range(1, 41):
                await store.xadd("{c0}:queries", grouped(number), id=f"{later_ms}-{number}")
        await store.xadd("{c0}:queries", grouped(51), id=f"{later_ms}-51")
        async with leading(keeper, archive):
            await until(lambda: is_archived(archive, 51))
        assert await archived_numbers(archive) == list(range(1, 52))
    await keeper.aclose()


async def is_archived(archive: Archive, number: int) -> bool:
    return (await archive.archived(QUERIES)).sequence >= number


async def test_servers_of_one_store_archive_what_each_of_them_answered(
    valkey_url: str, tmp_path: Path
) -> None:
    settings = {"data": str(tmp_path), "redis_url": valkey_url, "archive": "sqlite"}
    addresses = [free_address(), free_address()]
    async with (
        server_process(listen=addresses[0], **settings),
        server_process(listen=addresses[1], **settings),
        connected(addresses[0]) as one,
        connected(addresses[1]) as other,
        Archive.open(sqlite_url(tmp_path)) as archive,
    ):
        sku = await one.put(3)
        asked = stock_pb2.GetStockRequest(skus=[sku])
        calls = [client.stock.GetStock(asked) for _ in range(40) for client in (one, other)]
        told = {answer.query_id: answer async for answer in answers_of(calls)}
        found = await records(archive, 82)
        assert len(found) == len(told) == 80
        for record in found:
            (level,) = record.levels
            assert level is not None
            assert messages.level(level, record.time_ms) == told[record.id].levels[0]


async def answers_of(calls: Any) -> AsyncIterator[Any]:
    for call in calls:
        yield await call


async def test_what_is_left_is_recorded_when_a_server_stops(tmp_path: Path) -> None:
    async with serving(archive="sqlite", data=str(tmp_path)) as server:
        asked = stock_pb2.GetStockRequest(skus=[await server.put(3)])
        told = [(await server.stock.GetStock(asked)).query_id for _ in range(20)]
    async with audited(tmp_path) as (_server, archive):
        found = await records(archive, 22)
    assert [record.id for record in found] == told
