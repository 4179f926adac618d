"""Operations on one reservation are decided in the order sent, whatever the store does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from holdfast.v1 import stock_pb2 as stock
from tests.robustness.cutter import wired
from tests.serving import (
    COMMITTED,
    Client,
    Serving,
    failure_of_status,
    lines,
    seconds,
    serving,
    unique,
    until,
    until_due,
)

PAIRS, FRAME = 600, 30
HOLDS = 250


def pair(sku: str, number: int) -> tuple[stock.PipelineOperation, stock.PipelineOperation]:
    """A claim, and the sale that may be decided only after it."""
    name = f"pair-{number}"
    reserve = stock.ReserveRequest(reservation_id=name, lines=lines((sku, 1)))
    return (
        stock.PipelineOperation(tag=number, reserve=reserve),
        stock.PipelineOperation(
            tag=PAIRS + number, commit=stock.CommitRequest(reservation_id=name)
        ),
    )


async def sell_in_pairs(client: Client, sku: str) -> dict[int, stock.PipelineResult]:
    """Send claims in frames, each followed at once by a frame of their sales."""

    async def frames() -> AsyncIterator[stock.PipelineRequest]:
        for first in range(0, PAIRS, FRAME):
            claims, sales = zip(*(pair(sku, first + n) for n in range(FRAME)), strict=True)
            yield stock.PipelineRequest(operations=claims)
            yield stock.PipelineRequest(operations=sales)

    found: dict[int, stock.PipelineResult] = {}
    async for response in client.stock.Pipeline(frames()):
        found |= {result.tag: result for result in response.results}
    assert len(found) == 2 * PAIRS
    return found


def check_order(found: dict[int, stock.PipelineResult]) -> None:
    """Check that whatever was granted was there to be sold."""
    for number in range(PAIRS):
        claim, sale = found[number], found[PAIRS + number]
        if claim.HasField("reserve") and sale.HasField("error"):
            assert failure_of_status(sale.error).reason == "OUTCOME_UNKNOWN", number


async def test_a_sale_never_overtakes_its_claim_when_scripts_are_forgotten(store_url: str) -> None:
    async with serving(redis_url=store_url) as server, Redis.from_url(store_url) as redis:
        sku = await server.put(PAIRS)
        selling = asyncio.create_task(sell_in_pairs(server, sku))
        batches = server.server.batcher.counters.batches
        while not selling.done():
            await redis.function_flush()
            batches += 3
            await until(has_sent(server, batches, selling))
        found = await selling
        check_order(found)
        sold = [result for result in found.values() if result.HasField("commit")]
        assert [sale.commit.reservation.state for sale in sold] == [COMMITTED] * PAIRS


async def test_a_sale_never_overtakes_its_claim_when_connections_are_cut(
    store_url: str, tmp_path: Path
) -> None:
    async with wired(store_url, tmp_path) as (wire, url), serving(redis_url=url) as server:
        sku = await server.put(PAIRS)
        wire.cut_at_random(7, bytes_max=60_000)
        found = await sell_in_pairs(server, sku)
        wire.mend()
        assert wire.cuts > 0
        check_order(found)


@pytest.mark.usefixtures("no_sweeper")
@pytest.mark.parametrize("frames", [1, 2])
async def test_a_sale_never_overtakes_its_claim_in_a_backlog_of_due_holds(
    store_url: str, frames: int
) -> None:
    async with serving(redis_url=store_url) as server:
        sku = await server.put(HOLDS)
        holds = [server.reserve(sku, ttl=seconds(0.5)) for _ in range(HOLDS)]
        last = (await asyncio.gather(*holds))[-1].reservation.expires_at
        await until_due(store_url, last.ToMilliseconds())
        claim = stock.ReserveRequest(reservation_id=unique(), lines=lines((sku, HOLDS)))
        sale = stock.CommitRequest(reservation_id=claim.reservation_id)
        operations = [
            stock.PipelineOperation(tag=1, reserve=claim),
            stock.PipelineOperation(tag=2, commit=sale),
        ]
        cut = 2 // frames
        requests = [
            stock.PipelineRequest(operations=operations[first : first + cut])
            for first in range(0, 2, cut)
        ]
        found: dict[int, stock.PipelineResult] = {}
        async for response in server.stock.Pipeline(iter(requests)):
            found |= {result.tag: result for result in response.results}
        assert found[1].reserve.HasField("reservation")
        assert found[2].commit.reservation.state == COMMITTED


def has_sent(
    server: Serving, batches: int, selling: asyncio.Task[Any]
) -> Callable[[], Awaitable[bool]]:
    """Return what tells whether the server has sent so many batches, or all."""

    async def is_so() -> bool:
        return selling.done() or server.server.batcher.counters.batches >= batches

    return is_so
