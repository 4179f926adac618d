"""The last unit: hundreds of clients want it at once, and exactly one gets it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from tests.serving import COMMITTED, HELD, Client, Serving, connected, lines, serving, unique

CLIENTS, CHANNELS = 500, 10


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(data=str(tmp_path)) as server:
        yield server


@pytest.fixture
async def clients(server: Serving) -> AsyncIterator[list[Client]]:
    """Connections that the racers share."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(server.target)) for _ in range(CHANNELS)]


def wish(sku: str, name: str) -> stock.ReserveRequest:
    return stock.ReserveRequest(reservation_id=name, lines=lines((sku, 1)))


def check_one_winner(answers: list[stock.ReserveResponse], sku: str) -> str:
    """Check that one claim was granted and all others refused in full; return the winner's id."""
    won = [answer for answer in answers if answer.HasField("reservation")]
    lost = [answer for answer in answers if answer.HasField("refusal")]
    assert (len(won), len(lost)) == (1, CLIENTS - 1)
    held = won[0].reservation
    assert held.state == HELD
    for answer in lost:
        assert answer.refusal.reason == types.REFUSAL_REASON_OUT_OF_STOCK
        (line,) = answer.refusal.lines
        assert (line.sku, line.requested, line.available) == (sku, 1, 0)
        assert line.next_expiry_at == held.expires_at
        assert answer.levels[0].pressure == types.PRESSURE_SOLD_OUT
        assert answer.levels[0].advice == types.ADVICE_STOP
    return held.reservation_id


async def check_sold_once(server: Serving, sku: str, winner: str) -> None:
    assert (await server.commit(winner)).reservation.state == COMMITTED
    level = await server.level(sku)
    assert (level.on_hand, level.held, level.committed, level.available) == (1, 0, 1, 0)
    assert [entry.id for entry in await server.entries(3)] == [winner, winner]


async def test_of_500_clients_exactly_one_gets_the_last_unit(
    server: Serving, clients: list[Client]
) -> None:
    sku = await server.put(1)
    calls = [
        clients[number % CHANNELS].stock.Reserve(wish(sku, unique())) for number in range(CLIENTS)
    ]
    winner = check_one_winner([await call for call in calls], sku)
    await check_sold_once(server, sku, winner)


async def test_of_500_clients_on_pipelines_exactly_one_gets_the_last_unit(
    server: Serving, clients: list[Client]
) -> None:
    sku = await server.put(1)

    async def race(client: Client) -> list[stock.ReserveResponse]:
        """Send this channel's share in frames of ten."""
        frames = [
            stock.PipelineRequest(
                operations=[
                    stock.PipelineOperation(tag=tag, reserve=wish(sku, unique()))
                    for tag in range(first, first + 10)
                ]
            )
            for first in range(0, CLIENTS // CHANNELS, 10)
        ]
        found: dict[int, stock.ReserveResponse] = {}
        async for response in client.stock.Pipeline(iter(frames)):
            found |= {result.tag: result.reserve for result in response.results}
        assert sorted(found) == list(range(CLIENTS // CHANNELS))
        return list(found.values())

    answers = await asyncio.gather(*map(race, clients))
    winner = check_one_winner([answer for some in answers for answer in some], sku)
    await check_sold_once(server, sku, winner)


async def test_of_500_clients_that_repeat_themselves_exactly_one_gets_the_last_unit(
    server: Serving, clients: list[Client]
) -> None:
    sku = await server.put(1)
    names = [unique() for _ in range(CLIENTS // 2)]
    requests = [wish(sku, name) for name in names for _ in range(2)]
    calls = [
        clients[number % CHANNELS].stock.Reserve(request) for number, request in enumerate(requests)
    ]
    answers = [await call for call in calls]
    won = [answer.reservation for answer in answers if answer.HasField("reservation")]
    assert (len(won), len({held.reservation_id for held in won})) == (2, 1)
    assert sorted(answer.replayed for answer in answers if answer.HasField("reservation")) == [
        False,
        True,
    ]
    await check_sold_once(server, sku, won[0].reservation_id)
