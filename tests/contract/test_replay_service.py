"""ExplainStock, ReplayStock and ReplayDecision as their contract promises them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp
from redis.asyncio import Redis

from holdfast.v1 import ledger_pb2 as ledger
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from holdfast_server.ledger.leaf import read_batch
from holdfast_server.ledger.redeciding import Redecider
from holdfast_server.ledger.state import Fold, state_digest
from holdfast_server.stores.redis.keys import CellKeys
from tests.serving import (
    Serving,
    failure,
    lines,
    metadata,
    seconds,
    serving,
    unique,
    until,
    until_due,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXPIRED = (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", "holdfast")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kept(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A server on an embedded Valkey, with an archive."""
    data = str(tmp_path_factory.mktemp("data"))
    async with serving(data=data, durability="memory", archive="sqlite") as server:
        yield server


async def replayed(server: Serving, sku: str, **moment: Any) -> types.StockLevel:
    answer = await server.ledger.ReplayStock(ledger.ReplayStockRequest(skus=[sku], **moment))
    (level,) = answer.levels
    return level


async def decided(server: Serving, reservation_id: str) -> list[ledger.Decision]:
    request = ledger.ReplayDecisionRequest(reservation_id=reservation_id)
    return list((await server.ledger.ReplayDecision(request)).decisions)


async def test_every_level_that_was_answered_is_replayed_by_its_sequence(kept: Serving) -> None:
    sku = await kept.put(9, safety_stock=1, oversell_limit=3)
    seen = [await kept.level(sku)]
    await kept.adjust(sku, 2, "east")
    seen.append(await kept.level(sku))
    first = await kept.reserve(sku, 3, ttl=seconds(60))
    second = await kept.reserve(sku, 2, ttl=seconds(60))
    sold = await kept.commit(first.reservation.reservation_id, lines=lines((sku, 2)))
    given = await kept.stock.Release(
        stock.ReleaseRequest(reservation_id=second.reservation.reservation_id)
    )
    for answer in (first, second, sold, given):
        (level,) = answer.levels
        again = await replayed(kept, sku, sequence=answer.sequence)
        assert again == level
    for level in seen:
        again = await replayed(kept, sku, sequence=level.revision)
        assert again.available == level.available


async def test_what_was_refused_a_moment_ago_is_told(kept: Serving) -> None:
    sku, name = await kept.put(1), unique()
    level = await kept.stock.GetStock(stock.GetStockRequest(skus=[sku]))
    assert (await kept.reserve(sku, 2, reservation_id=name)).HasField("refusal")
    told = await decided(kept, name)
    assert [each.HasField("refusal") for each in told] == [False, True]
    assert told[0].query_id == level.query_id
    assert all(each.reproduced for each in told)


async def test_levels_come_in_the_order_asked_with_those_that_were_not_there(
    kept: Serving,
) -> None:
    one, other = await kept.put(1), await kept.put(2)
    sequence = (await kept.level(one)).revision
    request = ledger.ReplayStockRequest(skus=[other, one, "no such", one], sequence=sequence)
    answer = await kept.ledger.ReplayStock(request)
    assert [(level.sku, level.available) for level in answer.levels] == [(one, 1)]
    assert list(answer.missing_skus) == [other, "no such"]
    assert answer.sequence == sequence


async def test_at_a_time_a_hold_that_was_due_counts_as_expired(kept: Serving) -> None:
    sku = await kept.put(5)
    held = await kept.reserve(sku, 2, ttl=seconds(0.2))
    ends_ms = held.reservation.expires_at.ToMilliseconds()
    entry = await kept.until_expired(held.reservation.reservation_id)
    await until_due(kept.url, entry.time.ToMilliseconds())
    for ms, units in ((ends_ms - 1, 2), (ends_ms, 0), (entry.time.ToMilliseconds(), 0)):
        moment = Timestamp()
        moment.FromMilliseconds(ms)
        level = await replayed(kept, sku, time=moment)
        assert (level.held, level.as_of) == (units, moment)


async def test_a_moment_that_is_not_in_the_ledger_is_refused(kept: Serving) -> None:
    sku = await kept.put(1)
    head = await kept.head()
    past, future = Timestamp(seconds=1), Timestamp(seconds=200_000_000_000)
    moments: list[dict[str, Any]] = [
        {"sequence": 0},
        {"sequence": head.sequence + 1},
        {"time": past},
        {"time": future},
    ]
    for moment in moments:
        request = ledger.ReplayStockRequest(skus=[sku], **moment)
        assert (await failure(kept.ledger.ReplayStock(request))).kind == EXPIRED
    beyond = ledger.ExplainStockRequest(sku=sku, sequence=head.sequence + 1)
    assert (await failure(kept.ledger.ExplainStock(beyond))).kind == EXPIRED


@pytest.mark.parametrize(
    ("call", "fields"),
    [
        (ledger.ReplayStockRequest(sequence=1), {"skus"}),
        (ledger.ReplayStockRequest(skus=["a"] * 1_001, sequence=1), {"skus"}),
        (ledger.ReplayStockRequest(skus=[" a"]), {"skus[0]", "moment"}),
        (ledger.ReplayStockRequest(skus=["a"], sequence=-1), {"sequence"}),
        (ledger.ReplayStockRequest(skus=["a"], time=Timestamp(seconds=-1)), {"time"}),
        (ledger.ExplainStockRequest(sequence=-1), {"sku", "sequence"}),
        (ledger.ReplayDecisionRequest(), {"subject"}),
        (ledger.ReplayDecisionRequest(reservation_id="a b"), {"reservation_id"}),
        (ledger.ReplayDecisionRequest(query_id="\n"), {"query_id"}),
    ],
)
async def test_a_bad_argument_is_named(kept: Serving, call: Any, fields: set[str]) -> None:
    method = getattr(kept.ledger, type(call).__name__.removesuffix("Request"))
    failed = await failure(method(call))
    assert failed.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")
    assert set(failed.violations) == fields


async def test_a_level_is_explained_by_the_entries_that_made_it(kept: Serving) -> None:
    sku = await kept.put(10, safety_stock=2)
    held = await kept.reserve(sku, 3, ttl=seconds(60))
    sold = await kept.reserve(sku, 1)
    await kept.commit(sold.reservation.reservation_id)
    answer = await kept.ledger.ExplainStock(ledger.ExplainStockRequest(sku=sku))
    terms = {term.term: term for term in answer.terms}
    assert len(terms) == 6
    assert answer.level.available == 10 - 3 - 1 - 2
    assert [change.id for change in terms[ledger.STOCK_TERM_HELD].changes] == [
        held.reservation.reservation_id
    ]
    assert [change.id for change in terms[ledger.STOCK_TERM_COMMITTED].changes] == [
        sold.reservation.reservation_id
    ]
    (policy,) = terms[ledger.STOCK_TERM_SAFETY_STOCK].changes
    assert (policy.kind, policy.units) == (ledger.ENTRY_KIND_PUT_ITEM, 2)
    for term in answer.terms:
        assert term.units == term.earlier_units + sum(change.units for change in term.changes)
    unknown = await failure(kept.ledger.ExplainStock(ledger.ExplainStockRequest(sku=unique())))
    assert unknown.reason == "UNKNOWN_SKU"


async def test_a_decision_is_shown_with_what_it_saw_and_decided_again(kept: Serving) -> None:
    sku = await kept.put(5, title="A thing", safety_stock=1)
    why = types.Context(agent_id="agent 7", rationale="cheapest")
    held = await kept.reserve(sku, 2, context=why, ttl=seconds(60))
    name = held.reservation.reservation_id
    await kept.reserve(sku, 1, ttl=seconds(60))
    await kept.commit(name, order_ref="order 1")
    reserved, committed = await decided(kept, name)
    assert (reserved.reproduced, committed.reproduced) == (True, True)
    assert (reserved.entry.kind, committed.entry.kind) == (
        ledger.ENTRY_KIND_RESERVE,
        ledger.ENTRY_KIND_COMMIT,
    )
    assert (reserved.context, reserved.entry.reservation) == (why, held.reservation)
    assert [level.available for level in (*reserved.seen, *committed.seen)] == [4, 1]
    assert [(item.sku, item.title, item.safety_stock) for item in reserved.items] == [
        (sku, "A thing", 1)
    ]
    unknown = await failure(decided(kept, unique()))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_RESERVATION")


async def test_without_an_archive_nothing_is_replayed(server: Serving) -> None:
    calls = (
        server.ledger.ExplainStock(ledger.ExplainStockRequest(sku="a")),
        server.ledger.ReplayStock(ledger.ReplayStockRequest(skus=["a"], sequence=1)),
        server.ledger.ReplayDecision(ledger.ReplayDecisionRequest(reservation_id="a")),
    )
    for call in calls:
        assert (await failure(call)).code is grpc.StatusCode.UNIMPLEMENTED


async def test_an_empty_ledger_has_no_past(tmp_path: Path) -> None:
    async with serving(data=str(tmp_path), durability="memory", archive="sqlite") as server:
        calls = (
            server.ledger.ExplainStock(ledger.ExplainStockRequest(sku="a")),
            server.ledger.ReplayStock(ledger.ReplayStockRequest(skus=["a"], sequence=1)),
            server.ledger.ReplayStock(ledger.ReplayStockRequest(skus=["a"], time=Timestamp())),
            decided(server, "a"),
        )
        reasons = [(await failure(call)).reason for call in calls]
    lost = "RESUME_TOKEN_EXPIRED"
    assert reasons == ["UNKNOWN_SKU", lost, lost, "UNKNOWN_RESERVATION"]


async def test_the_ledger_of_a_live_server_is_decided_again_to_its_very_state(
    kept: Serving,
) -> None:
    skus = [await kept.put(20, late_commit=types.LATE_COMMIT_RETRY) for _ in range(3)]
    for sku in skus:
        await kept.reserve(sku, 2, ttl=seconds(60))
    keys = CellKeys.of(0)
    redecider, fold = Redecider(), Fold()
    async with Redis.from_url(kept.url) as client:
        pipe = client.pipeline(transaction=True)
        pipe.xrange(keys.ledger).hgetall(keys.items).hgetall(keys.holds)
        stream, rows, holds = await pipe.execute()
    for _id, fields in stream:
        batch = read_batch(fields[b"e"])
        assert redecider.follow(batch) is None
        fold.take(batch)
    digests = {state_digest(*redecider.state()), state_digest(fold.rows, fold.holds)}
    assert digests == {state_digest(rows, holds)}
    assert len(digests.pop()) == hashlib.sha256().digest_size


async def test_what_a_watch_had_told_before_a_decision_is_told_with_it(kept: Serving) -> None:
    agent, stranger = metadata(unique()), metadata(unique())
    sku, elsewhere, name, unseen = await kept.put(5), await kept.put(5), unique(), unique()
    watches: list[Any] = []
    for skus in ([sku], [elsewhere], []):
        request = stock.WatchRequest(skus=skus)
        watches.append(kept.stock.Watch(request, metadata=agent))
        while not (await watches[-1].read()).through_sequence:
            pass  # a part of the snapshot
    for watch in (watches[0], watches[2]):
        await kept.adjust(sku, 2)
        while sku not in [level.sku for level in (await watch.read()).levels]:
            pass  # of another test, or the one before
    for reservation_id, principal in ((name, agent), (unseen, stranger)):
        claim = stock.ReserveRequest(reservation_id=reservation_id, lines=lines((sku, 1)))
        held = await kept.stock.Reserve(claim, metadata=principal)
        assert held.HasField("reservation")
    await kept.adjust(sku, 2)
    for watch in watches:
        watch.cancel()

    async def seen() -> list[ledger.Decision]:
        return [each for each in await decided(kept, name) if each.watch_id]

    await until(lambda: _number(seen, 2))
    *sights, made = await decided(kept, name)
    assert made.entry.id == name
    for sight in sights:
        (level,) = sight.seen
        assert (level.sku, sight.reproduced) == (sku, True)
        assert sight.time.ToMilliseconds() <= made.time.ToMilliseconds()
    assert {sight.seen[0].available for sight in sights} <= {7, 9}
    assert max(sight.seen[0].available for sight in sights) == 9
    assert len({sight.watch_id for sight in sights}) == 2
    assert not any(each.watch_id for each in await decided(kept, unseen))


async def _number(found: Callable[[], Awaitable[list[Any]]], number: int) -> bool:
    return len(await found()) == number
