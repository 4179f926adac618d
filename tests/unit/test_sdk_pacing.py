"""How clients heed advice before they reserve."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast import (
    Attempt,
    Line,
    OutOfStock,
    Pacing,
    Plan,
    Refused,
    ReserveOptions,
    ServerLoad,
    StockLevel,
)
from holdfast.levels import Feed, KnownLevels
from holdfast.pacing import Pacer
from holdfast.responses import level_of
from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import types_pb2 as types
from tests.unit.watched import KINDS, Script, client_of, giving, level, snapshot

ADVICE = {name.removeprefix("ADVICE_"): number for name, number in types.Advice.items()}


def message(sku: str, advice: str, *, retry_ms: int = 0) -> types.StockLevel:
    found = level(sku, 0, 1, advice=ADVICE[advice])
    if retry_ms:
        found.retry_after.FromMilliseconds(retry_ms)
    return found


def knowing(*levels: types.StockLevel, age: float | None = None) -> KnownLevels:
    """Return what a client knows of answers, or with an age of a watch that has broken."""
    known = KnownLevels()
    if age is None:
        known.note(map(level_of, levels))
    else:
        feed = Feed()
        known.attach(feed)
        known.note(map(level_of, levels))
        feed.seen = {sku: (one, at - age) for sku, (one, at) in known._answers.items()}
        known.forget_answers()
    return known


def attempt(
    known: KnownLevels, *lines: Line, urgent: bool = False, load: str = "NORMAL", **options: Any
) -> Attempt:
    chosen: ReserveOptions = options  # type: ignore[assignment]  # they are named so
    return Attempt(lines or (Line("A", 2),), chosen, urgent, known.view, ServerLoad(load))


def other(sku: str, found: StockLevel) -> str | None:
    assert found.sku == sku
    return f"{sku}-2"


# ---- The policy ----


def test_without_advice_a_reserve_goes_as_it_is() -> None:
    known = knowing(message("A", "PROCEED"))
    for line in (Line("A", 2), Line("B", 1, "hall")):
        assert Pacing(alternative=other).plan(attempt(known, line)) == Plan((line,), 0.0)


@pytest.mark.parametrize("advice", ["SLOW_DOWN", "STOP"])
def test_the_pause_is_what_the_level_asks_for_with_jitter(advice: str) -> None:
    known = knowing(message("A", advice, retry_ms=1_000))
    delays = [Pacing().plan(attempt(known)).delay for _ in range(100)]
    assert 0.4 < min(delays) < max(delays) <= 1
    assert len(set(delays)) > 50


def test_the_pause_is_bounded() -> None:
    known = knowing(message("A", "SLOW_DOWN", retry_ms=10_000))
    assert 0 < Pacing(delay_max=0.2).plan(attempt(known)).delay <= 0.2


def test_the_longest_pause_of_all_lines_counts() -> None:
    known = knowing(
        message("A", "SLOW_DOWN", retry_ms=100), message("B", "SLOW_DOWN", retry_ms=900)
    )
    assert Pacing().plan(attempt(known, Line("A"), Line("B"))).delay > 0.4


def test_an_old_level_no_longer_delays() -> None:
    known = knowing(message("A", "SLOW_DOWN", retry_ms=1_000), age=1.5)
    assert Pacing().plan(attempt(known)).delay == 0
    known = knowing(message("A", "SLOW_DOWN", retry_ms=2_000), age=1.5)
    assert 0 < Pacing().plan(attempt(known)).delay <= 0.5


@pytest.mark.parametrize("advice", ["OFFER_ALTERNATIVE", "STOP", "BACKORDER"])
def test_an_alternative_takes_the_place_of_what_is_scarce(advice: str) -> None:
    known = knowing(message("A", advice, retry_ms=500), message("B", "PROCEED"))
    plan = Pacing(alternative=other).plan(attempt(known, Line("A", 2, "hall"), Line("B")))
    assert plan == Plan((Line("A-2", 2, "hall"), Line("B")), 0.0)
    plan = Pacing(alternative=lambda sku, found: None).plan(attempt(known))
    assert plan.lines == (Line("A", 2),)


def test_who_allows_backorder_gets_what_was_asked_for() -> None:
    known = knowing(message("A", "BACKORDER"))
    plan = Pacing(alternative=other).plan(attempt(known, allow_backorder=True))
    assert plan.lines == (Line("A", 2),)


def test_the_pause_is_that_of_the_alternative() -> None:
    known = knowing(message("A", "STOP"), message("A-2", "SLOW_DOWN", retry_ms=1_000))
    assert Pacing(alternative=other).plan(attempt(known)).delay > 0


def test_old_news_redirect_nothing() -> None:
    known = knowing(message("A", "STOP"), age=5)
    assert Pacing(alternative=other).plan(attempt(known)).lines == (Line("A", 2),)


def test_what_is_surely_sold_out_is_refused_here_only_if_asked_for() -> None:
    known = knowing(message("A", "STOP"), message("B", "PROCEED"))
    two = (Line("A", 2), Line("B"))
    assert Pacing().plan(attempt(known, *two)).lines == two
    with pytest.raises(OutOfStock) as caught:
        Pacing(stop="refuse").plan(attempt(known, *two, reservation_id="mine"))
    error = caught.value
    assert (error.is_local, error.sequence, error.idempotency_key) == (True, 0, "mine")
    assert [(line.sku, line.requested, line.available) for line in error.lines] == [("A", 2, 0)]
    assert [found.sku for found in error.levels] == ["A"]
    plan = Pacing(stop="refuse", alternative=other).plan(attempt(known))
    assert plan.lines == (Line("A-2", 2),)


def test_what_can_be_had_in_part_is_not_refused_here() -> None:
    known = knowing(message("A", "STOP"), message("B", "PROCEED"))
    two = (Line("A", 2), Line("B"))
    refusing = Pacing(stop="refuse")
    assert refusing.plan(attempt(known, *two, allow_partial=True)).lines == two
    with pytest.raises(OutOfStock):
        refusing.plan(attempt(known, Line("A"), allow_partial=True))


def test_what_may_be_back_is_not_refused_here() -> None:
    known = knowing(message("A", "STOP"), age=5)
    assert Pacing(stop="refuse").plan(attempt(known)).lines == (Line("A", 2),)


def test_a_running_watch_keeps_a_refusal_current() -> None:
    known = knowing(message("A", "STOP"), age=3_600)
    known._feeds[0].is_live = True
    with pytest.raises(OutOfStock):
        Pacing(stop="refuse").plan(attempt(known))


def test_a_loaded_server_gets_less_of_what_can_wait() -> None:
    known, pacing = KnownLevels(), Pacing(load_delay=0.1)
    assert pacing.plan(attempt(known)).delay == 0
    for load, limit in (("HIGH", 0.1), ("OVERLOADED", 0.4)):
        delays = [pacing.plan(attempt(known, load=load)).delay for _ in range(100)]
        assert limit / 2 < max(delays) <= limit
        assert pacing.plan(attempt(known, load=load, urgent=True)).delay == 0


def test_reserves_are_spread_over_the_interval_that_a_loaded_server_suggests() -> None:
    def delays_of(pacing: Pacing, load: ServerLoad, interval: float, urgent: bool = False) -> float:
        known = KnownLevels()
        known.note_load(load, interval)
        asking = Attempt((Line("A"),), {}, urgent, known.view, known.load, known.min_interval)
        return max(pacing.plan(asking).delay for _ in range(100))

    assert 0.5 < delays_of(Pacing(), ServerLoad.OVERLOADED, 1.0) <= 1.0
    assert 0.2 < delays_of(Pacing(), ServerLoad.OVERLOADED, 0.1) <= 0.4  # load_delay asks for more
    assert 0.1 < delays_of(Pacing(delay_max=0.2), ServerLoad.HIGH, 60.0) <= 0.2
    assert delays_of(Pacing(), ServerLoad.NORMAL, 1.0) == 0
    assert delays_of(Pacing(), ServerLoad.OVERLOADED, 1.0, urgent=True) == 0


def test_what_is_urgent_is_not_delayed_but_redirected() -> None:
    known = knowing(message("A", "SLOW_DOWN", retry_ms=1_000), message("B", "STOP"))
    plan = Pacing(alternative=other).plan(attempt(known, Line("A"), Line("B"), urgent=True))
    assert plan == Plan((Line("A"), Line("B-2")), 0.0)


@pytest.mark.parametrize(
    "options",
    [{"stop": "perhaps"}, {"delay_max": -1}, {"delay_max": float("nan")}, {"load_delay": -0.1}],
)
def test_a_bad_policy_is_told_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Pacing(**options)


def test_a_repeated_id_is_sent_as_before_until_it_is_refused() -> None:
    known = KnownLevels()
    pacer, pacing = Pacer(known), Pacing(alternative=other)
    mine: ReserveOptions = {"reservation_id": "mine"}
    assert pacer.plan(pacing, "A", mine, urgent=False).lines == (Line("A"),)
    known.note([level_of(message("A", "STOP"))])
    assert pacer.plan(pacing, ["A"], mine, urgent=False) == Plan((Line("A"),), 0.0)
    assert pacer.plan(pacing, "A", {}, urgent=False).lines == (Line("A-2"),)
    pacer.forget("mine")
    assert pacer.plan(pacing, "A", mine, urgent=False).lines == (Line("A-2"),)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.pacing.PLANS_MAX", 2)
    pacer = Pacer(KnownLevels())
    for number in range(5):
        pacer.plan(Pacing(), "A", {"reservation_id": f"r{number}"}, urgent=False)
    assert list(pacer._sent) == ["r3", "r4"]


# ---- The clients ----


class Desk(Script):
    """Grants what is asked for, and tells what that was."""

    def __init__(self, *levels: types.StockLevel) -> None:
        super().__init__(giving())
        self._levels = levels
        self.asked: list[tuple[str, list[str]]] = []
        self.left: list[float] = []
        self.refusing = False

    async def GetStock(self, request: pb.GetStockRequest, context: Any) -> pb.GetStockResponse:
        return pb.GetStockResponse(levels=self._levels)

    async def Reserve(self, request: pb.ReserveRequest, context: Any) -> pb.ReserveResponse:
        self.asked.append((request.reservation_id, [line.sku for line in request.lines]))
        self.left.append(context.time_remaining())
        if self.refusing:
            reason = types.REFUSAL_REASON_OUT_OF_STOCK
            return pb.ReserveResponse(refusal=types.Refusal(reason=reason))
        return pb.ReserveResponse(reservation=types.Reservation())

    async def Pipeline(
        self, requests: AsyncIterator[pb.PipelineRequest], context: Any
    ) -> AsyncIterator[pb.PipelineResponse]:
        async for request in requests:
            for operation in request.operations:
                result = pb.PipelineResult(tag=operation.tag)
                if operation.HasField("get_stock"):
                    answer = await self.GetStock(operation.get_stock, context)
                    result.get_stock.CopyFrom(answer)
                else:
                    reserved = await self.Reserve(operation.reserve, context)
                    result.reserve.CopyFrom(reserved)
                yield pb.PipelineResponse(results=[result])


ALONE: dict[str, dict[str, Any]] = {"asyncio": {"coalesce": False}, "threads": {}}


class Late:
    """Would wait for an hour."""

    def plan(self, attempt: Attempt) -> Plan:
        return Plan(attempt.lines, 3_600)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_pause_takes_half_of_the_timeout_at_most(kind: str) -> None:
    desk = Desk()
    async with client_of(kind, desk, pacing=Late(), **ALONE[kind]) as client:
        await client.reserve("A", timeout=1.0)
    assert desk.left[0] <= 0.5


class Noting:
    """Sends everything at once, and notes what interval is known."""

    def __init__(self) -> None:
        self.known: list[float] = []

    def plan(self, attempt: Attempt) -> Plan:
        self.known.append(attempt.min_interval)
        return Plan(attempt.lines)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_policy_is_told_the_interval_that_a_watch_brought(kind: str) -> None:
    pressure = pb.ServerPressure(load=pb.SERVER_LOAD_HIGH)
    pressure.suggested_min_interval.FromMilliseconds(250)
    desk, policy = Desk(), Noting()
    desk._behaviours = (giving(snapshot(5, level("A", 3, 5), server_pressure=pressure)),)
    async with client_of(kind, desk, pacing=policy, **ALONE[kind]) as client:
        await client.reserve("A")
        watch = client.watch()
        await anext(watch)
        await client.reserve("A")
        await watch.aclose()
    assert policy.known == [0.0, 0.25]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_line_is_redirected_before_it_is_sent(kind: str) -> None:
    desk = Desk(message("A", "STOP"))
    async with client_of(kind, desk, pacing=Pacing(alternative=other)) as client:
        await client.get_stock("A")
        await client.reserve(["A", "B"], reservation_id="mine")
    assert desk.asked == [("mine", ["A-2", "B"])]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_refused_here_is_not_sent(kind: str) -> None:
    desk = Desk(message("A", "STOP"))
    async with client_of(kind, desk, pacing=Pacing(stop="refuse")) as client:
        await client.get_stock("A")
        with pytest.raises(OutOfStock) as caught:
            await client.reserve("A")
        assert caught.value.is_local
        client_ = getattr(client, "client", client)
        client_.pacing = None
        await client.reserve("A")
    assert len(desk.asked) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_of_the_server_is_not_local_and_frees_the_id(kind: str) -> None:
    desk = Desk(message("A", "STOP"))
    desk.refusing = True
    async with client_of(kind, desk, pacing=Pacing(alternative=other)) as client:
        with pytest.raises(Refused) as caught:
            await client.reserve("A", reservation_id="mine")
        assert not caught.value.is_local
        await client.get_stock("A")
        desk.refusing = False
        await client.reserve("A", reservation_id="mine")
    assert desk.asked == [("mine", ["A"]), ("mine", ["A-2"])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lines", [7, [7], [("A", 1, "x", 2)]])
async def test_bad_lines_are_told_as_without_pacing(kind: str, lines: Any) -> None:
    async with client_of(kind, Desk(), pacing=Pacing()) as client:
        with pytest.raises(TypeError):
            await client.reserve(lines)


async def test_a_hold_is_paced_as_a_reserve_is() -> None:
    desk = Desk(message("A", "STOP"))
    async with client_of("asyncio", desk, pacing=Pacing(stop="refuse")) as client:
        await client.get_stock("A")
        with pytest.raises(OutOfStock):
            async with client.hold("A", urgent=True):
                pass
    assert desk.asked == []
