"""Expiry is exact: a hold is committed before its time, or never; and it blocks nobody after."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from holdfast.v1 import ledger_pb2 as ledger
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from tests.robustness.load import check_promises
from tests.serving import (
    COMMITTED,
    EXPIRED,
    HELD,
    Client,
    Failure,
    lines,
    outcome,
    seconds,
    serving,
    unique,
    until_due,
)

HOLDS, TTL_S, EARLY_MS = 100, 0.5, 20
BACKLOG, FRAME, BACKLOG_TTL_S = 2_000, 250, 1.5


async def race(client: Client, url: str, held: types.Reservation, number: int) -> Any:
    """Commit a hold at about the moment of its expiry, some before, some after."""
    expires_ms = held.expires_at.ToMilliseconds()
    await until_due(url, expires_ms - EARLY_MS + number % (2 * EARLY_MS))
    return await outcome(client.commit(held.reservation_id))


async def test_a_commit_that_races_its_expiry_wins_or_loses_and_never_both(
    store_url: str,
) -> None:
    async with serving(redis_url=store_url) as server:
        sku = await server.put(HOLDS)
        reserves = [server.reserve(sku, ttl=seconds(TTL_S)) for _ in range(HOLDS)]
        held = [answer.reservation for answer in await asyncio.gather(*reserves)]
        races = [race(server, store_url, hold, number) for number, hold in enumerate(held)]
        answers = await asyncio.gather(*races)
        ends: dict[str, list[ledger.LedgerEntry]] = {hold.reservation_id: [] for hold in held}
        for entry in await server.entries():
            if entry.kind in (ledger.ENTRY_KIND_COMMIT, ledger.ENTRY_KIND_EXPIRE):
                ends[entry.id].append(entry)
        for hold, answer in zip(held, answers, strict=True):
            (end,) = ends[hold.reservation_id]
            left_ms = hold.expires_at.ToMilliseconds() - end.time.ToMilliseconds()
            if isinstance(answer, Failure):
                assert answer.reason == "RESERVATION_EXPIRED"
                assert (end.kind, left_ms <= 0) == (ledger.ENTRY_KIND_EXPIRE, True)
            else:
                assert answer.reservation.state == COMMITTED
                assert (end.kind, left_ms > 0) == (ledger.ENTRY_KIND_COMMIT, True)
        level = await server.level(sku)
        assert level.committed == sum(not isinstance(answer, Failure) for answer in answers)
        assert (level.held, level.available) == (0, HOLDS - level.committed)
        await check_promises(server)


@pytest.mark.usefixtures("no_sweeper")
async def test_an_expired_hold_blocks_nobody_though_nothing_has_swept_it(store_url: str) -> None:
    async with serving(redis_url=store_url) as server:
        sku, old = await server.put(3), unique()
        held = await server.reserve(sku, 3, reservation_id=old, ttl=seconds(0.1))
        await until_due(store_url, held.reservation.expires_at.ToMilliseconds())
        assert [entry.kind for entry in await server.entries(3)] == [ledger.ENTRY_KIND_RESERVE]
        assert (await server.reserve(sku, 3)).reservation.state == HELD
        kinds = [entry.kind for entry in await server.entries(4)]
        assert kinds == [ledger.ENTRY_KIND_EXPIRE, ledger.ENTRY_KIND_RESERVE]


@pytest.mark.usefixtures("no_sweeper")
@pytest.mark.parametrize("call", ["commit", "release", "extend", "get"])
async def test_whatever_meets_a_due_hold_first_finds_it_expired(redis_url: str, call: str) -> None:
    async with serving(redis_url=redis_url) as server:
        sku, name = await server.put(3), unique()
        held = await server.reserve(sku, reservation_id=name, ttl=seconds(0.1))
        await until_due(redis_url, held.reservation.expires_at.ToMilliseconds())
        if call == "get":
            assert (await server.reservation(name)).state == EXPIRED
            return
        release = stock.ReleaseRequest(reservation_id=name)
        extend = stock.ExtendRequest(reservation_id=name, ttl=seconds(60))
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "commit": lambda: server.commit(name),
            "release": lambda: server.stock.Release(release),
            "extend": lambda: server.stock.Extend(extend),
        }
        answer = await outcome(calls[call]())
        assert isinstance(answer, Failure)
        assert answer.reason == "RESERVATION_EXPIRED"


def frames_of(sku: str) -> Iterator[stock.PipelineRequest]:
    for first in range(0, BACKLOG, FRAME):
        yield stock.PipelineRequest(
            operations=[
                stock.PipelineOperation(
                    tag=number,
                    reserve=stock.ReserveRequest(
                        reservation_id=f"hold-{number}",
                        lines=lines((sku, 1)),
                        ttl=seconds(BACKLOG_TTL_S),
                    ),
                )
                for number in range(first, first + FRAME)
            ]
        )


async def hold_everything(client: Client, sku: str) -> int:
    """Hold every unit in thousands of holds; return when the last of them expires."""
    last_ms = 0
    async for response in client.stock.Pipeline(frames_of(sku)):
        for result in response.results:
            assert result.reserve.reservation.state == HELD
            expires_at = result.reserve.reservation.expires_at
            last_ms = max(last_ms, expires_at.ToMilliseconds())
    return last_ms


@pytest.mark.usefixtures("no_sweeper")
async def test_a_backlog_of_due_holds_never_looks_like_sold_out(store_url: str) -> None:
    async with serving(redis_url=store_url) as server:
        sku = await server.put(BACKLOG)
        await until_due(store_url, await hold_everything(server, sku))
        batches = server.server.batcher.counters.batches
        claims = [server.reserve(sku, BACKLOG // 2) for _ in range(2)]
        for answer in await asyncio.gather(*claims):
            assert answer.WhichOneof("result") == "reservation"
        level = await server.level(sku)
        assert (level.held, level.pressure) == (BACKLOG, types.PRESSURE_SOLD_OUT)
        assert server.server.batcher.counters.batches > batches + 10  # it took many steps
        await check_promises(server)


async def test_a_sweeper_ends_a_backlog_by_itself(valkey_url: str) -> None:
    async with serving(redis_url=valkey_url) as server:
        sku = await server.put(BACKLOG)
        await hold_everything(server, sku)
        await server.until_expired(f"hold-{BACKLOG - 1}")
        assert (await server.level(sku)).available == BACKLOG
        await check_promises(server)
