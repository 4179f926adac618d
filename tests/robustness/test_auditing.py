"""Every answer without an entry reaches the archive exactly once, as it was answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from holdfast.v1 import stock_pb2, types_pb2
from holdfast_server.ledger.archive import QUERIES, Archive
from holdfast_server.ledger.audit import AuditKind, AuditRecord, read_record
from holdfast_server.rpc import messages
from holdfast_server.stores.redis.keeper import Fenced, RedisKeeper
from tests.archives import sqlite_url
from tests.robustness.processes import free_address, server_process
from tests.serving import Serving, connected, failure, lines, metadata, serving, unique, until

SAID = types_pb2.Context(agent_id="a", session_id="s", channel="web", rationale="it is red")


@asynccontextmanager
async def audited(folder: Path, **settings: Any) -> AsyncIterator[tuple[Serving, Archive]]:
    async with (
        serving(archive="sqlite", data=str(folder), **settings) as server,
        Archive.open(sqlite_url(folder)) as archive,
    ):
        yield server, archive


async def records(archive: Archive, count: int) -> list[AuditRecord]:
    """Wait until so many records are archived, and return all there are, without settings."""

    async def are_there() -> bool:
        return (await archive.archived(QUERIES)).sequence >= count

    await until(are_there)
    found = map(read_record, await archive.leaves(QUERIES, 0, 100_000))
    return [record for record in found if record.kind is not AuditKind.CONFIGURATION]


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


async def test_a_watch_is_archived_from_its_start_to_its_end(tmp_path: Path) -> None:
    async with audited(tmp_path) as (server, archive):
        sku = await server.put(3)
        watch = server.stock.Watch(stock_pb2.WatchRequest(skus=[sku]), metadata=metadata("watcher"))
        told: Any = await watch.read()
        watch.cancel()
        began, ended = await records(archive, 3)
        assert (began.kind, began.principal) == (AuditKind.WATCH, "watcher")
        assert began.asked == [[sku], 1, None]
        assert (began.sequence, began.answered) == (
            told.through_sequence,
            [told.through_sequence, 1],
        )
        assert (ended.kind, ended.id) == (AuditKind.WATCH_END, began.id)
        assert ended.answered[0] == told.through_sequence


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
