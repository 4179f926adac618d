"""A store that lost acknowledged history is noticed, and never written to in silence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from redis.asyncio import Redis
from structlog.testing import capture_logs

from holdfast.v1 import ledger_pb2 as ledger
from holdfast_server.errors import StoreUnavailable
from holdfast_server.model import PutItem
from holdfast_server.stores.redis.store import RedisStore, RedisStoreConfig
from tests.archives import OPERATOR
from tests.robustness.load import check_promises
from tests.serving import HELD, Client, digest, failure, serving, unique

UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "holdfast")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def redis(store_url: str) -> AsyncIterator[Any]:
    async with Redis.from_url(store_url) as client:
        yield client


async def health_becomes(client: Client, status: int) -> None:
    """Wait until the health service says so."""
    call = client.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )(health_pb2.HealthCheckRequest())
    async for response in call:
        if response.status == status:
            break
    call.cancel()


async def restore(redis: Any, saved: dict[bytes, bytes]) -> None:
    """Put a store back to what it was, as a failover to a stale replica does."""
    pipe = redis.pipeline(transaction=True)
    pipe.flushall()
    for key, value in saved.items():
        pipe.restore(key, 0, value)
    await pipe.execute()


@pytest.mark.parametrize("loss", ["everything", "the last step"])
async def test_lost_history_is_refused_and_told(redis: Any, store_url: str, loss: str) -> None:
    async with serving(redis_url=store_url) as server:
        sku = await server.put(10)
        saved = {key: await redis.dump(key) for key in await redis.keys("*")}
        await server.reserve(sku, 3)
        await health_becomes(server, SERVING)
        with capture_logs() as logs:
            await restore(redis, saved if loss == "the last step" else {})
            before = await digest(store_url)
            for call in (server.reserve(sku), server.adjust(sku, 1), server.level(sku)):
                refused = await failure(call)
                assert refused.kind == UNAVAILABLE
                assert "went back" in refused.message
            await health_becomes(server, NOT_SERVING)
        assert await digest(store_url) == before
        told = [entry for entry in logs if "history lost" in entry["event"]]
        assert [entry["log_level"] for entry in told] == ["error"]


async def test_history_that_comes_back_is_served_again(redis: Any, store_url: str) -> None:
    async with serving(redis_url=store_url) as server:
        sku = await server.put(10)
        saved = {key: await redis.dump(key) for key in await redis.keys("*")}
        await redis.flushall()
        await health_becomes(server, NOT_SERVING)
        await restore(redis, saved)
        await health_becomes(server, SERVING)
        assert (await server.reserve(sku)).reservation.state == HELD
        await check_promises(server)


async def test_where_loss_is_accepted_a_new_epoch_begins(redis: Any, store_url: str) -> None:
    async with serving(redis_url=store_url, on_rollback="new-epoch") as server:
        await server.put(10)
        before = await server.head()
        with capture_logs() as logs:
            await redis.flushall()
            sku = await server.put(5)
        after = await server.head()
        assert (after.epoch > before.epoch, after.sequence) == (True, 2)
        assert any("history" in entry["event"] for entry in logs)
        assert (await server.reserve(sku)).reservation.state == HELD
        await health_becomes(server, SERVING)
        await check_promises(server)


async def test_a_second_server_follows_into_the_new_epoch(redis: Any, store_url: str) -> None:
    async with (
        serving(redis_url=store_url, on_rollback="new-epoch") as first,
        serving(redis_url=store_url, on_rollback="new-epoch") as second,
    ):
        await first.put(10)
        await second.put(10)
        await redis.flushall()
        sku = await first.put(5)
        assert (await second.reserve(sku)).reservation.state == HELD
        assert (await first.head()).epoch == (await second.head()).epoch
        await check_promises(second)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(RedisStoreConfig(store_url))
    await store.open()
    await store.execute([PutItem("put-1", OPERATOR, "mug")])
    yield store
    await store.aclose()


async def test_a_batch_that_its_server_overtook_into_a_new_epoch_is_no_loss(
    redis: Any, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, before = store._link.call, store.known

    async def overtaken(*parts: Any) -> Any:
        monkeypatch.setattr(store._link, "call", call)
        await redis.hset("{c0}:meta", "epoch", before.epoch + 1)  # as another server does
        await store.execute([])
        assert store.known == (before.epoch + 1, before.sequence)
        return await call(*parts)

    monkeypatch.setattr(store._link, "call", overtaken)
    await store.execute([PutItem("put-2", OPERATOR, "cup")])
    assert store.known == (before.epoch + 1, before.sequence + 1)
    assert not store.is_lost


async def test_a_history_that_was_found_again_is_not_left(redis: Any, store: RedisStore) -> None:
    before = store.known
    await store.renew()
    assert store.known == before
    assert int(await redis.hget("{c0}:meta", "epoch")) == before.epoch
    await redis.hset("{c0}:meta", "sequence", 0)
    with pytest.raises(StoreUnavailable, match="went back"):
        await store.execute([])
    await store.renew()
    assert store.known.epoch > before.epoch
    assert not store.is_lost


async def test_a_stream_of_the_ledger_ends_with_the_epoch(redis: Any, store_url: str) -> None:
    async with serving(redis_url=store_url, on_rollback="new-epoch") as server:
        sku = await server.put(10)
        stream = server.ledger.StreamEntries(ledger.StreamEntriesRequest(follow=True))
        follow = aiter(stream)
        through = 0
        while through < 2:
            through = (await anext(follow)).through_sequence
        await redis.flushall()
        await server.put(1, sku=sku)
        refused = await failure(anext(follow))
        assert refused.kind == (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", "holdfast")


async def test_memory_durability_takes_a_restarted_store_for_a_new_history(
    tmp_path: Any,
) -> None:
    async with serving(data=str(tmp_path), durability="memory") as server:
        await server.put(10)
        before = (await server.head()).epoch
        async with Redis.from_url(server.url) as client:
            await client.flushall()
        name = unique()
        sku = await server.put(3)
        assert (await server.reserve(sku, reservation_id=name)).reservation.state == HELD
        assert (await server.head()).epoch > before
