"""How calls end, by every transport alike, and how sessions live over them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import grpc
import pytest

from holdfast.errors import (
    DeadlineExceeded,
    Draining,
    HoldfastError,
    NotOwner,
    OutcomeUnknown,
    Overloaded,
    ReservationExpired,
    StoreUnavailable,
    Throttled,
    UnknownSku,
    Unreachable,
)
from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import stock_pb2_grpc, types_pb2
from holdfast_bench.harness.alarm import Alarm
from holdfast_bench.harness.answers import Answer, answer_of, failure_of
from holdfast_bench.harness.recording import Outcome, Recorder, merge
from holdfast_bench.harness.scenario import Ends, Life
from holdfast_bench.harness.session import Dice, Session, Shop
from holdfast_bench.harness.transport import TRANSPORTS, Transport, connect
from tests.fake_stock import Behaviour, FakeStock

NAMES = sorted(TRANSPORTS)


@asynccontextmanager
async def served(stock: FakeStock) -> AsyncIterator[str]:
    server = grpc.aio.server()
    stock_pb2_grpc.add_StockServiceServicer_to_server(stock, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def connected(target: str, name: str, *, timeout_s: float = 10.0) -> AsyncIterator[Transport]:
    (transport,) = await connect(target, name, 1, timeout_s=timeout_s)
    try:
        yield transport
    finally:
        await transport.aclose()


def reserve(number: int = 0, units: int = 1) -> pb.ReserveRequest:
    lines = [types_pb2.Line(sku="A", quantity=units)]
    return pb.ReserveRequest(reservation_id=f"r-{number}", lines=lines)


@pytest.mark.parametrize("name", NAMES)
async def test_a_refusal_is_told_from_an_answer(name: str) -> None:
    async with served(FakeStock(Behaviour(units=1))) as target, connected(target, name) as one:
        first = await one.call("reserve", reserve(1))
        second = await one.call("reserve", reserve(2))
        read = await one.call("get_stock", pb.GetStockRequest(skus=["A"]))
    assert (first.outcome, first.message.reservation.reservation_id) == (Outcome.OK, "r-1")
    assert (second.outcome, second.reason) == (Outcome.SOLD_OUT, "OUT_OF_STOCK")
    assert (read.outcome, read.message.levels[0].sku) == (Outcome.OK, "A")


@pytest.mark.parametrize("name", NAMES)
async def test_many_calls_at_once_each_get_their_own_answer(name: str) -> None:
    delays = [0.001 * (number % 7) for number in range(300)]
    async with served(FakeStock(Behaviour(delays))) as target, connected(target, name) as one:
        answers = await asyncio.gather(
            *(one.call("reserve", reserve(number)) for number in range(300))
        )
    ids = [answer.message.reservation.reservation_id for answer in answers]
    assert ids == [f"r-{number}" for number in range(300)]


@pytest.mark.parametrize("name", NAMES)
async def test_no_answer_in_time_is_a_deadline(name: str) -> None:
    async with (
        served(FakeStock(Behaviour([30.0]))) as target,
        connected(target, name, timeout_s=0.2) as one,
    ):
        answer = await one.call("reserve", reserve())
    assert (answer.outcome, answer.reason) == (Outcome.DEADLINE, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("name", NAMES)
async def test_a_call_to_a_server_that_has_gone_is_an_error(name: str) -> None:
    async with connected_to_nothing(name) as one:
        answer = await one.call("reserve", reserve())
    assert (answer.outcome, answer.reason) == (Outcome.ERROR, "UNREACHABLE")


@asynccontextmanager
async def connected_to_nothing(name: str) -> AsyncIterator[Transport]:
    """Yield a connection whose server has gone."""
    async with served(FakeStock(Behaviour())) as target:
        (one,) = await connect(target, name, 1, timeout_s=10.0)
    try:
        yield one
    finally:
        await one.aclose()


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (Throttled(""), Outcome.THROTTLED, "THROTTLED"),
        (Overloaded(""), Outcome.SHED, "OVERLOADED"),
        (Draining(""), Outcome.SHED, "DRAINING"),
        (DeadlineExceeded(""), Outcome.DEADLINE, "DEADLINE_EXCEEDED"),
        (ReservationExpired(""), Outcome.REFUSED, "RESERVATION_EXPIRED"),
        (StoreUnavailable(""), Outcome.ERROR, "STORE_UNAVAILABLE"),
        (OutcomeUnknown(""), Outcome.ERROR, "OUTCOME_UNKNOWN"),
        (UnknownSku(""), Outcome.ERROR, "UNKNOWN_SKU"),
        (NotOwner(""), Outcome.ERROR, "NOT_OWNER"),
        (Unreachable(""), Outcome.ERROR, "UNREACHABLE"),
    ],
)
def test_errors_are_sorted_by_what_they_are(
    error: HoldfastError, outcome: Outcome, reason: str
) -> None:
    assert failure_of(error) == Answer(outcome, reason)


def test_a_refusal_other_than_sold_out_is_told_apart() -> None:
    refusal = types_pb2.Refusal(reason=types_pb2.REFUSAL_REASON_HOLD_BUDGET)
    answer = answer_of(pb.ReserveResponse(refusal=refusal))
    assert (answer.outcome, answer.reason) == (Outcome.REFUSED, "HOLD_BUDGET")


class Noted:
    """A transport that answers at once, and remembers what it was asked."""

    def __init__(self, *outcomes: tuple[str, Outcome]) -> None:
        self.asked: list[tuple[str, Any]] = []
        self._outcomes = dict(outcomes)

    async def call(self, kind: str, request: Any) -> Answer:
        self.asked.append((kind, request))
        await asyncio.sleep(0)
        outcome = self._outcomes.get(kind, Outcome.OK)
        responses = {
            "reserve": pb.ReserveResponse,
            "commit": pb.CommitResponse,
            "release": pb.ReleaseResponse,
        }
        if kind == "get_stock" or outcome is not Outcome.OK:
            return Answer(outcome)
        record = types_pb2.Reservation(sequence=len(self.asked))
        return Answer(outcome, "", responses[kind](reservation=record))

    async def watch(self, request: pb.WatchRequest) -> tuple[Answer, Any]:
        raise AssertionError("these sessions do not watch")

    async def aclose(self) -> None:
        pass


async def lived(life: Life, transport: Noted, *, number: int = 1) -> Shop:
    """Let one agent live; return its shop."""
    epoch = time.perf_counter()
    with Alarm() as alarm:
        shop = Shop(
            "run",
            7,
            life,
            ["A", "B", "C"],
            Dice(lambda rng: int(rng.random() * 3), lambda _rng: 0.0, lambda _rng: 0.0),
            Recorder(epoch),
            lambda _moment: "steady",
            alarm,
        )
        await Session(shop, transport, number, epoch).live()
    return shop


def kinds(transport: Noted) -> list[str]:
    return [kind for kind, _request in transport.asked]


@pytest.mark.parametrize(
    ("end", "asked"),
    [
        ("commit", ["get_stock", "reserve", "commit"]),
        ("fail", ["get_stock", "reserve", "release"]),
        ("release", ["get_stock", "reserve", "release"]),
        ("die", ["get_stock", "reserve"]),
    ],
)
async def test_a_hold_ends_as_the_scenario_says(end: str, asked: list[str]) -> None:
    transport = Noted()
    shop = await lived(Life(ends=Ends(**{"commit": 0.0, end: 1.0})), transport)
    assert kinds(transport) == asked
    assert shop.tally.bought.total() == (end == "commit")
    assert len(shop.tally.acknowledged) == 3 * (len(asked) - 1)


async def test_a_refused_agent_leaves() -> None:
    transport = Noted(("reserve", Outcome.SOLD_OUT))
    shop = await lived(Life(), transport)
    assert kinds(transport) == ["get_stock", "reserve"]
    assert not shop.tally.bought


async def test_a_commit_without_an_answer_may_have_been_a_sale() -> None:
    shop = await lived(Life(quantity=(2, 2)), Noted(("commit", Outcome.DEADLINE)))
    assert (shop.tally.bought.total(), shop.tally.unknown.total()) == (0, 2)


async def test_a_cart_has_different_items() -> None:
    transport = Noted()
    await lived(Life(lines=(3, 3), quantity=(1, 4), browse="none"), transport)
    lines = transport.asked[0][1].lines
    assert sorted(line.sku for line in lines) == ["A", "B", "C"]
    assert all(1 <= line.quantity <= 4 for line in lines)


async def test_the_number_of_a_session_decides_what_it_does() -> None:
    life = Life(lines=(1, 3), quantity=(1, 9))
    baskets = []
    for number in (1, 1, 2):
        transport = Noted()
        await lived(life, transport, number=number)
        baskets.append(str(transport.asked[1][1].lines))
    assert baskets[0] == baskets[1] != baskets[2]


async def test_a_call_that_the_end_of_the_run_cut_off_is_counted() -> None:
    class Silent(Noted):
        async def call(self, kind: str, request: Any) -> Answer:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

    asked, transport, epoch = asyncio.Event(), Silent(), time.perf_counter()
    with Alarm() as alarm:
        dice = Dice(lambda _rng: 0, lambda _rng: 0.0, lambda _rng: 0.0)
        recorder = Recorder(epoch)
        shop = Shop("run", 7, Life(), ["A"], dice, recorder, lambda _moment: "steady", alarm)
        living = asyncio.create_task(Session(shop, transport, 1, epoch).live())
        await asked.wait()
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
    assert merge(recorder.encode()).rpcs["GetStock"].reasons == {"UNANSWERED": 1}


async def test_an_alarm_wakes_everybody_at_their_moment_and_in_order() -> None:
    began, rung = time.perf_counter(), []

    async def sleep(alarm: Alarm, moment: float) -> None:
        await alarm.until(moment)
        assert time.perf_counter() >= moment
        rung.append(moment)

    moments = [began + 0.001 * Random(1).randrange(100) for _ in range(200)]
    with Alarm() as alarm:
        await asyncio.gather(*(sleep(alarm, moment) for moment in (began - 1, *moments)))
    assert Counter(rung) == Counter((began - 1, *moments))
