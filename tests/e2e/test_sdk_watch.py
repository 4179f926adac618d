"""The SDK's watch, levels and pacing against running servers: one suite for both clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from holdfast import (
    Advice,
    Attempt,
    LagCause,
    Lagging,
    OutOfStock,
    Pacing,
    Plan,
    Resumed,
    ResumeTokenExpired,
    Resynced,
    ResyncReason,
    Row,
    StockChanges,
    StockLevel,
)
from holdfast.v1 import stock_pb2
from tests.e2e.clients import CLIENTS, item, unique
from tests.robustness.processes import ServerProcess, free_address, server_process
from tests.serving import Serving, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

LARGE = 1_200


@pytest.fixture(params=["coalesced", "threaded"])
def new_client(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return CLIENTS[request.param]


@pytest_asyncio.fixture(loop_scope="module")
async def other(server: Serving, new_client: Callable[..., Any]) -> AsyncIterator[Any]:
    """Another client, of whose calls the first hears by its watch alone."""
    async with new_client(server.target, principal="other", timeout=10.0) as connected:
        yield connected


class Seen:
    """What whoever follows a watch knows, and the marks it was given."""

    def __init__(self, watch: Any) -> None:
        self.watch = watch
        self.levels: dict[str, StockLevel] = {}
        self.missing: tuple[str, ...] = ()
        self.through = -1
        self.snapshots: list[StockChanges] = []
        self.marks: list[Any] = []

    async def until(self, is_enough: Callable[[], bool]) -> None:
        """Take changes until it is enough, without asking for more than that."""
        while not is_enough():
            self._take(await anext(self.watch))

    async def until_through(self, sequence: int) -> None:
        await self.until(lambda: self.through >= sequence)

    def _take(self, change: Any) -> None:
        if not isinstance(change, StockChanges):
            self.marks.append(change)
            if isinstance(change, Resynced):
                self.levels, self.through = {}, -1
            return
        assert change.through_sequence >= self.through
        self.through, self.missing = change.through_sequence, change.missing_skus
        self.levels.update(change.by_sku)
        if change.is_snapshot:
            self.snapshots.append(change)


@asynccontextmanager
async def watching(client: Any, skus: Collection[str] = (), **options: Any) -> AsyncIterator[Seen]:
    """Watch, from the first message on."""
    watch = client.watch(skus, **options)
    try:
        seen = Seen(watch)
        await seen.until(lambda: seen.through >= 0)
        yield seen
        assert watch.violations == 0
    finally:
        await watch.aclose()


def counts(level: StockLevel) -> tuple[object, ...]:
    """Return what of a level changes by entries of the ledger alone, and not with time."""
    return level[: StockLevel._fields.index("revision") + 1]


async def head_of(client: Any) -> int:
    (cell,) = await client.get_head()
    return int(cell.sequence)


async def trade(client: Any, *skus: str, times: int = 30) -> int:
    """Hold, sell and give back units, all at once; return the sequence of the last of it."""

    async def once(number: int) -> None:
        held = (await client.reserve(skus[number % len(skus)], ttl=600)).reservation
        if number % 3 == 0:
            await client.commit(held.reservation_id)
        elif number % 3 == 1:
            await client.release(held.reservation_id)

    await asyncio.gather(*map(once, range(times)))
    return await head_of(client)


async def agrees(client: Any, seen: Seen, *skus: str) -> None:
    """Check that a watch has told what the server says, and that its client knows it, too."""
    asker = (await client.get_stock(skus)).levels
    assert len(asker) == len(skus)
    for level in asker:
        assert counts(seen.levels[level.sku]) == counts(level)
        assert counts(client.levels[level.sku]) == counts(level)
        known = client.levels.known(level.sku)
        assert (known.is_live, known.level.revision) == (True, level.revision)


# ---- Following ----


@pytest.mark.parametrize("is_all", [False, True])
async def test_a_watch_tells_all_that_happens_to_what_it_follows(
    client: Any, other: Any, is_all: bool
) -> None:
    mine = [await item(client, 100) for _ in range(3)]
    others = await item(client, 100)
    async with watching(client, () if is_all else mine) as seen:
        (snapshot,) = seen.snapshots
        assert {*mine} <= snapshot.by_sku.keys()
        assert all(seen.levels[sku].available == 100 for sku in mine)
        await seen.until_through(await trade(other, *mine, others))
        assert seen.marks == []
        assert (others in seen.levels) is is_all
        # Nothing was answered to this client: what it knows it has from its watch.
        known = {sku: counts(client.levels[sku]) for sku in mine}
        assert known == {sku: counts(seen.levels[sku]) for sku in mine}
        await agrees(client, seen, *mine)


async def test_an_item_that_does_not_exist_is_named_and_followed_once_it_does(
    client: Any, other: Any
) -> None:
    here, coming, never = await item(client), unique(), unique()
    async with watching(client, [here, coming, never]) as seen:
        assert seen.levels.keys() == {here}
        assert seen.missing == (coming, never)
        await other.put_item(coming)
        await seen.until(lambda: coming in seen.levels)
        assert seen.missing == (never,)
        await other.adjust_stock(coming, 7)
        await seen.until(lambda: seen.levels[coming].available == 7)
        assert client.levels[coming].available == 7
        assert never not in client.levels


async def test_a_large_catalogue_arrives_as_one_whole_although_it_is_sold_from(
    new_client: Callable[..., Any], tmp_path: Path
) -> None:
    async with (
        serving(data=str(tmp_path), durability="memory") as server,
        new_client(server.target, timeout=20.0) as client,
        new_client(server.target, timeout=20.0) as seller,
    ):
        skus = [f"sku-{number:04}" for number in range(LARGE)]
        await client.import_items([Row(sku, {"Main": 10}) for sku in skus])
        selling = asyncio.create_task(trade(seller, *skus[::40], times=90))
        async with watching(client) as seen:
            (snapshot,) = seen.snapshots
            assert len(snapshot.levels) == len(seen.levels) == LARGE
            await seen.until_through(await selling)
            await agrees(client, seen, *skus[:1_000])
            await agrees(client, seen, *skus[1_000:])
        raw = server.stock.Watch(stock_pb2.WatchRequest())
        first = await raw.read()
        assert isinstance(first, stock_pb2.WatchResponse)
        assert (len(first.levels), first.through_sequence, first.resume_token) == (500, 0, "")
        raw.cancel()


# ---- Going on ----


async def stop(server: ServerProcess) -> None:
    assert await server.stop() == 0


@pytest.mark.parametrize("end", [stop, ServerProcess.kill])
async def test_a_watch_goes_on_over_a_restart_and_misses_nothing(
    new_client: Callable[..., Any], tmp_path: Path, end: Callable[[ServerProcess], Any]
) -> None:
    address = free_address()
    settings = {"listen": address, "data": str(tmp_path), "durability": "always"}
    async with new_client(address, timeout=10.0, lazy=True) as client:
        async with server_process(**settings) as server:
            skus = [await item(client, 100) for _ in range(3)]
            watch = client.watch(skus)
            seen = Seen(watch)
            await seen.until(lambda: bool(seen.snapshots))
            async with new_client(address) as other:
                await trade(other, *skus)
            lagging = asyncio.create_task(seen.until(lambda: bool(seen.marks)))
            await end(server)
            await lagging
        async with server_process(**settings), new_client(address) as other:
            await seen.until_through(await trade(other, *skus))
            await agrees(client, seen, *skus)
            await watch.aclose()
    *lags, resumed = seen.marks
    assert all(isinstance(mark, Lagging) for mark in lags)
    assert lags[0].cause is (LagCause.DRAINING if end is stop else LagCause.DISCONNECTED)
    assert isinstance(resumed, Resumed)
    assert len(seen.snapshots) == 1
    assert watch.violations == 0


async def test_a_token_resumes_a_watch_in_another_client(
    client: Any, server: Serving, new_client: Callable[..., Any]
) -> None:
    sku, idle = await item(client, 100), await item(client)
    async with watching(client, [sku, idle]) as before:
        token = before.watch.resume_token
    await trade(client, sku)
    async with (
        new_client(server.target) as second,
        watching(second, [sku, idle], resume_token=token) as seen,
    ):
        await seen.until_through(await head_of(client))
        assert (seen.snapshots, seen.marks, seen.levels.keys()) == ([], [], {sku})
        await agrees(second, seen, sku)


async def test_a_stopping_server_hands_its_watches_to_the_other(
    redis_url: str, new_client: Callable[..., Any]
) -> None:
    first, second = free_address(), free_address()
    async with (
        server_process(listen=first, redis_url=redis_url) as stopping,
        server_process(listen=second, redis_url=redis_url),
        new_client(f"ipv4:{first},{second}", timeout=10.0) as client,
        new_client(second, timeout=10.0) as other,
    ):
        skus = [await item(other, 100) for _ in range(3)]
        async with watching(client, skus) as seen:
            trading = asyncio.create_task(trade(other, *skus, times=60))
            lagging = asyncio.create_task(seen.until(lambda: bool(seen.marks)))
            assert await stopping.stop() == 0
            await lagging
            await seen.until_through(await trading)
            await seen.until(lambda: Resumed in map(type, seen.marks))
            assert isinstance(seen.marks[0], Lagging)
            assert seen.marks[0].cause is LagCause.DRAINING
            assert Resynced not in map(type, seen.marks)
            assert len(seen.snapshots) == 1
            await agrees(client, seen, *skus)


# ---- A lost history ----


@asynccontextmanager
async def losing(url: str) -> AsyncIterator[tuple[Serving, Any]]:
    """Serve from a store that may lose everything, and say how."""
    client: Any
    async with (
        serving(redis_url=url, on_rollback="new-epoch") as server,
        Redis.from_url(url) as client,
    ):
        yield server, client


async def test_a_lost_history_is_told_anew(redis_url: str, new_client: Callable[..., Any]) -> None:
    async with losing(redis_url) as (server, store), new_client(server.target) as client:
        gone = await item(client)
        async with watching(client) as seen:
            assert gone in seen.levels
            await store.flushall()
            sku = await item(client, 4)
            await seen.until(lambda: sku in seen.levels and seen.levels[sku].available == 4)
            resynced = [mark for mark in seen.marks if isinstance(mark, Resynced)]
            assert [mark.reason for mark in resynced] == [ResyncReason.EPOCH_CHANGED]
            assert seen.levels.keys() == {sku}
            await agrees(client, seen, sku)
            assert gone not in client.levels


async def test_a_watch_that_must_not_miss_anything_fails_when_history_is_lost(
    redis_url: str, new_client: Callable[..., Any]
) -> None:
    async with losing(redis_url) as (server, store), new_client(server.target) as client:
        await item(client)
        async with watching(client, on_gap="FAIL") as seen:
            token = seen.watch.resume_token
            await store.flushall()
            await item(client)
            with pytest.raises(ResumeTokenExpired):
                await seen.until(lambda: False)
        with pytest.raises(ResumeTokenExpired):
            async with watching(client, resume_token=token, on_gap="FAIL"):
                pass
        async with watching(client, resume_token=token) as seen:
            (mark,) = seen.marks
            assert (mark.reason, len(seen.levels)) == (ResyncReason.GAP, 1)


# ---- Pacing ----


class Noting:
    """A pacing that notes the plans of another."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self.plans: list[Plan] = []

    def plan(self, attempt: Attempt) -> Plan:
        plan = self._pacing.plan(attempt)
        self.plans.append(plan)
        return plan


@asynccontextmanager
async def paced(server: Serving, new_client: Callable[..., Any], pacing: Pacing) -> Any:
    noting = Noting(pacing)
    async with new_client(server.target, timeout=10.0, pacing=noting) as client:
        yield client, noting.plans


async def test_what_runs_low_is_asked_for_slowly_unless_it_is_urgent(
    server: Serving, new_client: Callable[..., Any], other: Any
) -> None:
    sku = await item(other, 50, sellout_horizon=0)  # by its units alone
    async with (
        paced(server, new_client, Pacing()) as (client, plans),
        watching(client, [sku]) as seen,
    ):
        await client.reserve(sku, ttl=60)
        await other.reserve([(sku, 44)], ttl=60)
        await seen.until(lambda: seen.levels[sku].available == 5)
        level = client.levels[sku]
        assert (level.advice, level.retry_after) == (Advice.SLOW_DOWN, 0.5)
        await client.reserve(sku, ttl=60, urgent=True)
        start = time.monotonic()
        await client.reserve(sku, ttl=60)
        waited = time.monotonic() - start
    unhurried, urgent, slowed = plans
    assert (unhurried.delay, urgent.delay) == (0, 0)
    assert 0 < slowed.delay <= waited


@pytest.mark.parametrize("units", [3, 0])
async def test_what_is_scarce_or_gone_is_replaced_before_it_is_asked_for(
    server: Serving, new_client: Callable[..., Any], other: Any, units: int
) -> None:
    scarce, plenty = await item(other, units), await item(other, 500)
    pacing = Pacing(alternative=lambda sku, _level: plenty if sku == scarce else None)
    async with (
        paced(server, new_client, pacing) as (client, _plans),
        watching(client, [scarce, plenty]),
    ):
        advice = Advice.OFFER_ALTERNATIVE if units else Advice.STOP
        assert client.levels[scarce].advice is advice
        held = (await client.reserve([(scarce, 2)], ttl=60)).reservation
        assert [(line.sku, line.quantity) for line in held.lines] == [(plenty, 2)]
        assert (await other.get_stock(scarce)).levels[0].held == 0


async def test_what_a_watch_says_is_gone_is_not_asked_for(
    server: Serving, new_client: Callable[..., Any], other: Any
) -> None:
    sku = await item(other, 1)
    async with (
        paced(server, new_client, Pacing(stop="refuse")) as (client, _plans),
        watching(client, [sku]) as seen,
    ):
        held = (await other.reserve(sku, ttl=60)).reservation
        await other.commit(held.reservation_id)
        await seen.until(lambda: seen.levels[sku].available == 0 == seen.levels[sku].held)
        head = await head_of(other)
        with pytest.raises(OutOfStock) as caught:
            await client.reserve(sku)
        assert caught.value.is_local
        await other.adjust_stock(sku, 1)
        await seen.until(lambda: seen.levels[sku].available == 1)
        assert not (await client.reserve(sku, ttl=60)).replayed
        assert await head_of(other) == head + 2
