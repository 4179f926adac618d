"""Several servers on one store, and a store that is a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.robustness.load import check_promises, stocked, under_load
from tests.robustness.processes import free_address
from tests.servers import redis_binary
from tests.servers import serving as store_serving
from tests.serving import COMMITTED, EXPIRED, Client, seconds, serving, unique, until

CLUSTER_SLOTS = 16_384


async def test_two_servers_on_one_store_keep_every_promise_together(store_url: str) -> None:
    async with serving(redis_url=store_url) as one, serving(redis_url=store_url) as other:
        skus = await stocked(one)
        async with under_load(one, other, skus=skus) as load:
            await load.after(600)
        assert load.failures == {}
        await check_promises(one, load.acknowledged)
        await check_promises(other, load.acknowledged)

        async def is_one_ledger() -> bool:  # holds may still run out between the two answers
            return await one.head() == await other.head()

        await until(is_one_ledger)
        head = await one.head()
        await asyncio.gather(one.put(1), other.put(1))
        assert (await one.head()).sequence >= head.sequence + 4


async def test_what_one_server_reserved_another_commits(redis_url: str) -> None:
    async with serving(redis_url=redis_url) as one, serving(redis_url=redis_url) as other:
        sku, name = await one.put(2), unique()
        await one.reserve(sku, 2, reservation_id=name)
        assert (await other.reserve(sku, 2, reservation_id=name)).replayed
        assert (await other.reserve(sku)).HasField("refusal")
        assert (await other.commit(name)).reservation.state == COMMITTED
        assert (await one.commit(name)).replayed


async def test_two_sweepers_end_a_hold_once(redis_url: str) -> None:
    async with serving(redis_url=redis_url) as one, serving(redis_url=redis_url) as other:
        sku = await one.put(20)
        names = [unique() for _ in range(20)]
        for name in names:
            await one.reserve(sku, reservation_id=name, ttl=seconds(0.1))
        for name in names:
            await other.until_expired(name)
            assert (await one.reservation(name)).state == EXPIRED
        await check_promises(other)
        assert (await one.level(sku)).available == 20


@pytest.fixture
def cluster_url() -> Iterator[str]:
    """URL of a cluster of one node, which has every slot."""
    binary = redis_binary() or pytest.skip("redis-server is not on this machine's PATH")
    host, _, port = free_address().partition(":")
    bus = free_address().partition(":")[2]
    options = ["--cluster-enabled", "yes", "--bind", host, "--port", port, "--cluster-port", bus]
    with store_serving(binary, *options) as url:
        yield url


@pytest.fixture
async def cluster(cluster_url: str) -> AsyncIterator[Any]:
    """A client of the cluster once that is up."""
    client: Any
    async with Redis.from_url(cluster_url, decode_responses=True) as client:
        await client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, CLUSTER_SLOTS - 1)

        async def is_up() -> bool:
            return "cluster_state:ok" in str(await client.execute_command("CLUSTER", "INFO"))

        await until(is_up)
        yield client


async def test_all_keys_of_a_cell_are_in_one_slot_of_a_cluster(
    cluster: Any, cluster_url: str
) -> None:
    async with serving(redis_url=cluster_url, hold_budget=10_000) as server:
        skus = await stocked(server)
        async with under_load(server, skus=skus, agents=4) as load:
            await load.after(50)
        await check_promises(server, load.acknowledged)
        keys = await cluster.keys("*")
        slots = {await cluster.execute_command("CLUSTER", "KEYSLOT", key) for key in keys}
        assert (len(keys), len(slots)) == (7, 1)


async def test_cells_of_one_store_do_not_see_each_other(redis_url: str) -> None:
    async with (
        serving(redis_url=redis_url, cell=0) as zero,
        serving(redis_url=redis_url, cell=1) as one,
    ):
        sku = await zero.put(5)
        await one.put(1, sku=sku)
        assert await units(zero, sku) == 5
        assert await units(one, sku) == 1
        assert (await zero.head()).cell == 0
        assert (await one.head()).cell == 1


async def units(client: Client, sku: str) -> int:
    return (await client.level(sku)).available
