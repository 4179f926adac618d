"""The levels that a client knows without asking."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast import LevelView, OutOfStock, ServerLoad, StockLevel
from holdfast.levels import Feed, KnownLevels
from holdfast.responses import level_of
from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import types_pb2 as types
from tests.unit.watched import KINDS, Script, client_of, first, giving, level, snapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def known_level(sku: str, available: int, revision: int, *, after: float = 0.0) -> StockLevel:
    found = level_of(level(sku, available, revision))
    return found._replace(as_of=NOW + timedelta(seconds=after))


def fed(known: KnownLevels, *levels: StockLevel) -> Feed:
    feed = Feed()
    feed.seen = {one.sku: (one, 0.0) for one in levels}
    known.attach(feed)
    return feed


def test_a_view_is_a_mapping_that_nobody_can_write() -> None:
    known = KnownLevels()
    view = known.view
    assert (len(view), list(view), view.get("A"), "A" in view) == (0, [], None, False)
    known.note([known_level("A", 1, 1), known_level("B", 2, 2)])
    assert {sku: one.available for sku, one in view.items()} == {"A": 1, "B": 2}
    assert (len(view), "A" in view, 7 in view) == (2, True, False)
    with pytest.raises(KeyError):
        view["C"]
    with pytest.raises(TypeError):
        view["A"] = known_level("A", 1, 1)  # type: ignore[index]
    assert repr(view) == "<LevelView of 2 items>"


@pytest.mark.parametrize(
    ("later", "wins"),
    [
        (known_level("A", 2, 6), True),
        (known_level("A", 2, 4), False),  # an answer that was overtaken
        (known_level("A", 2, 5, after=1), True),  # advice changed, with time
        (known_level("A", 2, 5, after=-1), False),
        (known_level("A", 2, 4, after=20), False),
        (known_level("A", 2, 1, after=60), True),  # a new epoch
    ],
)
def test_the_newest_revision_wins(later: StockLevel, wins: bool) -> None:
    known = KnownLevels()
    known.note([known_level("A", 1, 5)])
    known.note([later])
    assert known.view["A"].available == (2 if wins else 1)


def test_the_newest_of_watches_and_answers_is_seen() -> None:
    known = KnownLevels()
    known.note([known_level("A", 1, 5), known_level("B", 1, 5)])
    fed(known, known_level("A", 2, 6), known_level("B", 2, 4))
    fed(known, known_level("A", 3, 3), known_level("C", 3, 1))
    assert {sku: one.available for sku, one in known.view.items()} == {"A": 2, "B": 1, "C": 3}


def test_a_running_watch_vouches_for_its_levels() -> None:
    known = KnownLevels()
    feed = fed(known, known_level("A", 2, 6))
    known.note([known_level("B", 1, 1)])
    for is_live in (True, False):
        feed.is_live = is_live
        assert [known.known(sku).is_live for sku in "AB"] == [is_live, False]  # type: ignore[union-attr]


def test_what_a_watch_knew_outlives_it_as_an_answer() -> None:
    known = KnownLevels()
    feed = fed(known, known_level("A", 2, 6))
    feed.is_live = True
    known.detach(feed)
    known.detach(feed)
    found = known.known("A")
    assert found is not None
    assert (found.level.available, found.is_live) == (2, False)


def test_answers_are_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.levels.ANSWERS_MAX", 3)
    known = KnownLevels()
    known.note([known_level(sku, 1, 1) for sku in "ABC"])
    known.note([known_level("A", 2, 2), known_level("D", 1, 1)])
    assert set(known.view) == {"A", "C", "D"}


def test_levels_may_be_read_while_others_write() -> None:
    known, done = KnownLevels(), threading.Event()
    feed = fed(known)

    def write() -> None:
        for number in range(3_000):
            known.note([known_level(f"A{number}", 1, number)])
            feed.seen[f"B{number}"] = (known_level(f"B{number}", 1, number), 0.0)
        done.set()

    writing = threading.Thread(target=write)
    writing.start()
    while not done.is_set():
        assert all(found.available == 1 for found in known.view.values())
    writing.join()
    assert len(known.view) == 6_000


def test_a_load_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownLevels()
    known.note_load(ServerLoad.HIGH)
    assert known.load is ServerLoad.HIGH
    monkeypatch.setattr("holdfast.levels.LOAD_FRESH_S", 0.0)
    known.note_load(ServerLoad.HIGH)
    assert known.load is ServerLoad.NORMAL


def test_an_interval_lasts_as_long_as_the_load_it_was_suggested_for() -> None:
    known = KnownLevels()
    known.note_load(ServerLoad.OVERLOADED, 1.0)
    known.note_load(ServerLoad.OVERLOADED)  # as the trailers of a unary call say it
    assert known.min_interval == 1.0
    known.note_load(ServerLoad.OVERLOADED, 0.5)
    assert known.min_interval == 0.5
    known.note_load(ServerLoad.HIGH)
    assert known.min_interval == 0.0


class Shop(Script):
    """Answers every call with one level."""

    available = 3
    load = ""

    def levels(self) -> list[types.StockLevel]:
        return [level("A", self.available, 10 - self.available)]

    async def Reserve(self, request: pb.ReserveRequest, context: Any) -> pb.ReserveResponse:
        if self.load:
            context.set_trailing_metadata((("holdfast-load", self.load),))
        if not self.available:
            refusal = types.Refusal(reason=types.REFUSAL_REASON_OUT_OF_STOCK)
            return pb.ReserveResponse(refusal=refusal, levels=self.levels())
        return pb.ReserveResponse(reservation=types.Reservation(), levels=self.levels())

    async def Commit(self, request: pb.CommitRequest, context: Any) -> pb.CommitResponse:
        return pb.CommitResponse(reservation=types.Reservation(), levels=self.levels())

    async def Release(self, request: pb.ReleaseRequest, context: Any) -> pb.ReleaseResponse:
        return pb.ReleaseResponse(reservation=types.Reservation(), levels=self.levels())

    async def GetStock(self, request: pb.GetStockRequest, context: Any) -> pb.GetStockResponse:
        return pb.GetStockResponse(levels=self.levels())

    async def Pipeline(self, requests: Any, context: Any) -> None:
        async for request in requests:
            for operation in request.operations:
                answer = await self.Reserve(operation.reserve, context)
                result = pb.PipelineResult(tag=operation.tag, reserve=answer)
                pressure = pb.ServerPressure(load=pb.SERVER_LOAD_HIGH) if self.load else None
                if pressure is not None:
                    pressure.suggested_min_interval.FromMilliseconds(100)
                await context.write(pb.PipelineResponse(results=[result], server_pressure=pressure))


OPTIONS: dict[str, dict[str, Any]] = {"asyncio": {"coalesce": False}, "threads": {}}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_answer_tells_its_levels(kind: str) -> None:
    shop = Shop(giving())
    async with client_of(kind, shop, **OPTIONS[kind]) as client:
        assert isinstance(client.levels, LevelView)
        for call in (
            lambda: client.reserve("A"),
            lambda: client.commit("r"),
            lambda: client.release("r"),
            lambda: client.get_stock("A"),
        ):
            await call()
            assert client.levels["A"].available == shop.available
            shop.available -= 1
            if not shop.available:
                shop.available = 3
                client._known.forget_answers() if kind == "asyncio" else (
                    client.client._known.forget_answers()
                )


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_tells_its_levels_too(kind: str) -> None:
    shop = Shop(giving())
    shop.available = 0
    async with client_of(kind, shop) as client:
        with pytest.raises(OutOfStock):
            await client.reserve("A")
        assert client.levels["A"].available == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_watch_tells_its_levels(kind: str) -> None:
    async with client_of(kind, Script(giving(snapshot(5, level("A", 3, 5))))) as client:
        watch = client.watch()
        await first(watch, 1)
        found = client.levels.known("A")
        assert (found.level.available, found.is_live) == (3, True)
        await watch.aclose()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("asyncio", {}), ("asyncio", {"coalesce": False}), ("threads", {})],
    ids=["coalesced", "alone", "threads"],
)
async def test_a_loaded_server_is_known_from_its_answers(
    kind: str, options: dict[str, Any]
) -> None:
    shop = Shop(giving())
    async with client_of(kind, shop, **options) as client:
        assert client.server_load is ServerLoad.NORMAL
        shop.load = "high"
        await client.reserve("A")
        assert client.server_load is ServerLoad.HIGH
        known = getattr(client, "client", client)._known
        assert known.min_interval == (0.0 if options or kind == "threads" else 0.1)
        shop.load = ""
        await client.reserve("A")
        assert client.server_load is ServerLoad.NORMAL
