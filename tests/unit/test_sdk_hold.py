"""Holds as blocks, over a client that does what the test says."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast import (
    AsyncHold,
    Committed,
    Context,
    DeadlineExceeded,
    EndedReason,
    Extended,
    Hold,
    HoldfastError,
    LifetimeExceeded,
    OutOfStock,
    Overloaded,
    Released,
    Reservation,
    ReservationCommitted,
    ReservationState,
    Reserved,
    StockLevel,
    Unreachable,
)
from holdfast.responses import level_of
from holdfast.v1 import types_pb2

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TTL = 0.03


def record(
    sequence: int, *, state: ReservationState = ReservationState.HELD, ttl: float = TTL
) -> Reservation:
    has_ended = state is not ReservationState.HELD
    return Reservation(
        "r",
        state,
        (),
        Context(),
        NOW,
        NOW + timedelta(seconds=ttl),
        NOW if has_ended else None,
        EndedReason(state) if has_ended else EndedReason.UNSPECIFIED,
        "",
        False,
        sequence,
        "me",
        "",
    )


def level() -> StockLevel:
    return level_of(types_pb2.StockLevel(sku="A"))._replace(as_of=NOW)


class Desk:
    """Answers calls from a script, the last line of it for ever, and keeps what was asked."""

    def __init__(self, **script: list[Any]) -> None:
        self._script = {name: deque(answers) for name, answers in script.items()}
        self.asked: list[str] = []
        self.ttls: list[Any] = []
        self.extended = threading.Semaphore(0)

    def _answer(self, call: str, default: Any) -> Any:
        self.asked.append(call)
        answers = self._script.get(call, deque([default]))
        answer = answers.popleft() if len(answers) > 1 else answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def reserve(self, lines: Any, **options: Any) -> Reserved:
        assert options["reservation_id"]
        reserved: Reserved = self._answer("reserve", Reserved(record(1), (level(),), 1, False))
        return reserved

    def extend(self, reservation_id: str, ttl: Any, **options: Any) -> Extended:
        self.ttls.append(ttl)
        try:
            extended: Extended = self._answer("extend", Extended(record(2), 2, False))
        finally:
            self.extended.release()
        return extended

    def commit(self, reservation_id: str, lines: Any, **options: Any) -> Committed:
        done = record(3, state=ReservationState.COMMITTED)
        committed: Committed = self._answer("commit", Committed(done, (), 3, False))
        return committed

    def release(self, reservation_id: str, lines: Any = (), **options: Any) -> Released:
        done = record(3, state=ReservationState.RELEASED)
        released: Released = self._answer("release", Released(done, (), 3, False))
        return released


class AsyncDesk:
    """The same for asyncio."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def extended(self) -> None:
        while not self.desk.extended.acquire(blocking=False):  # noqa: ASYNC110  # it is no event
            await asyncio.sleep(0.001)

    async def reserve(self, *given: Any, **options: Any) -> Reserved:
        return self.desk.reserve(*given, **options)

    async def extend(self, *given: Any, **options: Any) -> Extended:
        return self.desk.extend(*given, **options)

    async def commit(self, *given: Any, **options: Any) -> Committed:
        return self.desk.commit(*given, **options)

    async def release(self, *given: Any, **options: Any) -> Released:
        return self.desk.release(*given, **options)


def async_hold(desk: AsyncDesk, **options: Any) -> AsyncHold:
    return AsyncHold(desk, "A", None, options)  # type: ignore[arg-type]


def hold(desk: Desk, **options: Any) -> Hold:
    return Hold(desk, "A", None, options)  # type: ignore[arg-type]


IN_DOUBT = [DeadlineExceeded("late"), Unreachable("gone")]
SURE = [OutOfStock("none left"), Overloaded("busy")]


@pytest.mark.parametrize("error", IN_DOUBT, ids=repr)
async def test_a_reserve_that_may_have_been_made_is_given_back(error: HoldfastError) -> None:
    for enter in (_enter_async, _enter_in_thread):
        desk = Desk(reserve=[error])
        with pytest.raises(type(error)):
            await enter(desk)
        assert desk.asked == ["reserve", "release"]


@pytest.mark.parametrize("error", SURE, ids=repr)
async def test_a_reserve_that_was_not_made_is_not_given_back(error: HoldfastError) -> None:
    for enter in (_enter_async, _enter_in_thread):
        desk = Desk(reserve=[error])
        with pytest.raises(type(error)):
            await enter(desk)
        assert desk.asked == ["reserve"]


async def _enter_async(desk: Desk) -> None:
    async with async_hold(AsyncDesk(desk)):
        pytest.fail("the block ran")


async def _enter_in_thread(desk: Desk) -> None:
    def enter() -> None:
        with hold(desk):
            pytest.fail("the block ran")

    await asyncio.to_thread(enter)


async def test_a_failed_extension_is_tried_again() -> None:
    desk = AsyncDesk(
        Desk(extend=[Unreachable("gone"), Overloaded("busy"), Extended(record(7), 7, False)])
    )
    async with async_hold(desk) as held:
        for _ in range(3):
            await desk.extended()
        assert held.extension_error is None
        assert held.reservation.sequence == 7


def test_a_failed_extension_is_tried_again_by_the_thread() -> None:
    desk = Desk(extend=[Unreachable("gone"), Overloaded("busy"), Extended(record(2), 2, False)])
    with hold(desk) as held:
        for _ in range(3):
            assert desk.extended.acquire(timeout=5)
    assert held.extension_error is None
    assert held.reservation.state is ReservationState.RELEASED


async def test_extending_stops_when_there_is_nothing_more_to_extend() -> None:
    desk = AsyncDesk(Desk(extend=[LifetimeExceeded("no more")]))
    async with async_hold(desk) as held:
        await desk.extended()
        await asyncio.sleep(TTL)
    assert isinstance(held.extension_error, LifetimeExceeded)
    assert desk.desk.asked == ["reserve", "extend", "release"]


async def test_extending_asks_for_the_ttl_that_was_asked_for_or_given() -> None:
    for options, expected in (({"ttl": 0.06}, 0.06), ({}, timedelta(seconds=TTL))):
        desk = AsyncDesk(Desk())
        async with async_hold(desk, **options):
            await desk.extended()
        assert set(desk.desk.ttls) == {expected}


async def test_an_answer_that_was_overtaken_changes_nothing() -> None:
    desk = AsyncDesk(Desk(extend=[Extended(record(0), 0, False)]))
    async with async_hold(desk) as held:
        await desk.extended()
        assert held.reservation.sequence == 1


async def test_an_extension_that_meets_the_commit_is_no_error() -> None:
    desk = AsyncDesk(Desk(extend=[ReservationCommitted("sold")]))
    async with async_hold(desk) as held:
        await held.commit()
        await asyncio.sleep(TTL)
    assert held.extension_error is None
    assert "release" not in desk.desk.asked


@pytest.mark.parametrize("error", [*IN_DOUBT, *SURE], ids=repr)
async def test_a_release_that_fails_is_left_to_the_expiry(error: HoldfastError) -> None:
    for enter in (_leave_async, _leave_in_thread):
        desk = Desk(release=[error])
        await enter(desk)
        assert desk.asked == ["reserve", "release"]


async def _leave_async(desk: Desk) -> None:
    async with async_hold(AsyncDesk(desk), ttl=30):
        pass


async def _leave_in_thread(desk: Desk) -> None:
    def leave() -> None:
        with hold(desk, ttl=30):
            pass

    await asyncio.to_thread(leave)


def test_the_thread_ends_with_the_block() -> None:
    before = threading.active_count()
    with hold(Desk(), ttl=30) as held:
        assert threading.active_count() == before + 1
        held.commit()
    assert threading.active_count() == before
