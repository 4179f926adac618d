"""StockService as its contract promises it, on each kind of store."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from tests.serving import (
    COMMITTED,
    HELD,
    RELEASED,
    Serving,
    failure,
    lines,
    metadata,
    seconds,
    serving,
    unique,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


def ms(moment: Timestamp) -> int:
    return moment.ToMilliseconds()


def units(reservation: types.Reservation) -> list[tuple[str, int, int]]:
    return [(line.sku, line.quantity, line.backordered) for line in reservation.lines]


def counts(level: types.StockLevel) -> tuple[int, int, int, int]:
    return level.on_hand, level.held, level.committed, level.available


async def reserve(server: Serving, *wanted: tuple[str, int], **fields: Any) -> Any:
    fields.setdefault("reservation_id", unique())
    return await server.stock.Reserve(stock.ReserveRequest(lines=lines(*wanted), **fields))


# ---- Reserve ----


async def test_a_reserve_answers_with_its_reservation_and_the_level_it_left(
    server: Serving,
) -> None:
    sku = await server.put(10, safety_stock=2)
    context = types.Context(agent_id="agent", session_id="s", external_ref="cart", rationale="why")
    request = stock.ReserveRequest(
        reservation_id=unique(), lines=lines((sku, 3)), ttl=seconds(30), context=context
    )
    answer = await server.stock.Reserve(request, metadata=metadata("shop"))
    reservation, level = answer.reservation, answer.levels[0]
    assert reservation.reservation_id == request.reservation_id
    assert (reservation.state, reservation.ended_reason) == (HELD, types.ENDED_REASON_UNSPECIFIED)
    assert (reservation.principal, reservation.context) == ("shop", context)
    assert units(reservation) == [(sku, 3, 0)]
    assert ms(reservation.expires_at) - ms(reservation.created_at) == 30_000
    assert not reservation.HasField("ended_at")
    assert not answer.replayed
    assert (level.sku, counts(level)) == (sku, (10, 3, 0, 5))
    assert level.safety_stock == 2
    assert answer.sequence == reservation.sequence == level.revision
    assert (level.pressure, level.advice) == (types.PRESSURE_LOW, types.ADVICE_SLOW_DOWN)
    assert level.retry_after.ToMilliseconds() > 0
    assert ms(level.as_of) == ms(reservation.created_at)


async def test_a_hold_without_ttl_lasts_as_long_as_the_shortest_default(server: Serving) -> None:
    usual, short = await server.put(1), await server.put(1, hold_ttl_default=seconds(4.5))
    for wanted, expected in (([usual], 10_000), ([usual, short], 4_500)):
        answer = await reserve(server, *((sku, 1) for sku in wanted))
        held = answer.reservation
        assert ms(held.expires_at) - ms(held.created_at) == expected
        await server.stock.Release(stock.ReleaseRequest(reservation_id=held.reservation_id))


async def test_a_repeated_reserve_is_a_replay_with_the_current_state(server: Serving) -> None:
    sku, other = await server.put(5), await server.put(5)
    request = stock.ReserveRequest(
        reservation_id=unique(), lines=lines((sku, 1), (other, 1), (sku, 2)), ttl=seconds(60)
    )
    same = stock.ReserveRequest()
    same.CopyFrom(request)
    del same.lines[:]
    same.lines.extend(lines((other, 1), (sku, 3)))
    first = await server.stock.Reserve(request)
    again = await server.stock.Reserve(same)
    assert (first.replayed, again.replayed) == (False, True)
    assert again.reservation == first.reservation
    await server.commit(request.reservation_id)
    again = await server.stock.Reserve(request)
    assert (again.replayed, again.reservation.state) == (True, COMMITTED)
    assert counts(await server.level(sku)) == (5, 0, 3, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"ttl": seconds(61)},
        {"allow_partial": True},
        {"allow_backorder": True},
        {"if_sequence": 2**50},
        {"context": types.Context(agent_id="other")},
        {"lines": []},
    ],
    ids=["ttl", "allow_partial", "allow_backorder", "if_sequence", "context", "lines"],
)
async def test_an_id_with_another_payload_is_refused(
    server: Serving, change: dict[str, Any]
) -> None:
    sku = await server.put(5)
    fields: dict[str, Any] = {
        "reservation_id": unique(),
        "lines": lines((sku, 1)),
        "ttl": seconds(60),
    }
    await server.stock.Reserve(stock.ReserveRequest(**fields))
    if "lines" in change:
        change = {"lines": lines((sku, 2))}
    refused = await failure(server.stock.Reserve(stock.ReserveRequest(**{**fields, **change})))
    assert refused.kind == (grpc.StatusCode.ALREADY_EXISTS, "RESERVATION_ID_REUSED", "holdfast")
    assert refused.metadata == {"id": fields["reservation_id"]}
    assert (await server.level(sku)).held == 1


async def test_an_empty_id_is_made_by_the_server_each_time_anew(server: Serving) -> None:
    sku = await server.put(2)
    request = stock.ReserveRequest(lines=lines((sku, 1)))
    first, second = await server.stock.Reserve(request), await server.stock.Reserve(request)
    ids = {first.reservation.reservation_id, second.reservation.reservation_id}
    assert len(ids) == 2
    assert "" not in ids


async def test_a_refusal_says_what_there_is_and_when_more_may_come(server: Serving) -> None:
    sku, plenty = await server.put(5), await server.put(500)
    held = (await reserve(server, (sku, 3), ttl=seconds(60))).reservation
    await reserve(server, (sku, 1), ttl=seconds(90))
    name = unique()
    answer = await reserve(server, (sku, 1), (sku, 1), (plenty, 1), reservation_id=name)
    assert answer.WhichOneof("result") == "refusal"
    assert answer.refusal.reason == types.REFUSAL_REASON_OUT_OF_STOCK
    assert answer.refusal.message
    (line,) = answer.refusal.lines
    assert (line.sku, line.requested, line.available) == (sku, 2, 1)
    assert line.next_expiry_at == held.expires_at
    levels = {level.sku: level for level in answer.levels}
    assert counts(levels[sku]) == (5, 4, 0, 1)
    assert levels[sku].advice == types.ADVICE_OFFER_ALTERNATIVE
    assert levels[sku].pressure == types.PRESSURE_SCARCE
    assert levels[plenty].advice == types.ADVICE_PROCEED
    assert levels[plenty].held == 0
    # The id is still unused, with whatever payload.
    assert (await reserve(server, (sku, 1), reservation_id=name)).reservation.state == HELD


async def test_a_sold_out_item_advises_to_stop(server: Serving) -> None:
    sku = await server.put(1)
    held = await reserve(server, (sku, 1))
    assert held.levels[0].advice == types.ADVICE_STOP
    assert held.levels[0].HasField("retry_after")  # the hold may end
    await server.commit(held.reservation.reservation_id)
    answer = await reserve(server, (sku, 1))
    (line,) = answer.refusal.lines
    assert (line.available, line.HasField("next_expiry_at")) == (0, False)
    assert answer.levels[0].pressure == types.PRESSURE_SOLD_OUT
    assert not answer.levels[0].HasField("retry_after")  # nothing is to come back


async def test_a_partial_reserve_takes_what_there_is_of_each_line(server: Serving) -> None:
    some, none, plenty = await server.put(2), await server.put(0), await server.put(50)
    answer = await reserve(server, (some, 5), (none, 5), (plenty, 5), allow_partial=True)
    expected = sorted([(some, 2, 0), (none, 0, 0), (plenty, 5, 0)])
    assert units(answer.reservation) == expected
    answer = await reserve(server, (some, 5), (none, 5), allow_partial=True)
    assert answer.refusal.reason == types.REFUSAL_REASON_OUT_OF_STOCK
    assert len(answer.refusal.lines) == 2


async def test_units_beyond_stock_are_granted_only_where_item_and_request_allow(
    server: Serving,
) -> None:
    never, allowed = await server.put(2), await server.put(2, oversell_limit=3)
    for sku, fields in ((never, {"allow_backorder": True}), (allowed, {})):
        assert (await reserve(server, (sku, 3), **fields)).HasField("refusal")
    answer = await reserve(server, (allowed, 4), allow_backorder=True)
    assert units(answer.reservation) == [(allowed, 4, 2)]
    level = answer.levels[0]
    assert (level.available, level.oversell_left) == (-2, 1)
    assert (level.pressure, level.advice) == (types.PRESSURE_SOLD_OUT, types.ADVICE_BACKORDER)
    answer = await reserve(server, (allowed, 2), allow_backorder=True)
    assert answer.refusal.lines[0].available == -2


async def test_units_at_a_location_must_be_there(server: Serving) -> None:
    sku = await server.put(0)
    for location, delta in (("north", 2), ("south", 5)):
        await server.adjust(sku, delta, location)
    request = stock.ReserveRequest(reservation_id=unique(), lines=lines((sku, 3, "north")))
    (line,) = (await server.stock.Reserve(request)).refusal.lines
    assert (line.location, line.requested, line.available) == ("north", 3, 2)
    request.lines[0].location = "south"
    assert (await server.stock.Reserve(request)).reservation.lines[0].location == "south"


async def test_a_replaced_hold_lends_its_units_and_can_never_be_committed(
    server: Serving,
) -> None:
    sku = await server.put(3)
    old = (await reserve(server, (sku, 3))).reservation.reservation_id
    refused = await reserve(server, (sku, 4), replaces=old)
    assert refused.refusal.lines[0].available == 3  # the units of the old hold count as free
    assert (await server.reservation(old)).state == HELD
    new = (await reserve(server, (sku, 2), replaces=old)).reservation.reservation_id
    ended = await server.reservation(old)
    assert (ended.state, ended.ended_reason) == (RELEASED, types.ENDED_REASON_SUPERSEDED)
    assert ended.replaced_by == new
    refusal = await failure(server.commit(old))
    assert refusal.kind == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "RESERVATION_SUPERSEDED",
        "holdfast",
    )
    assert refusal.metadata["replaced_by"] == new
    assert counts(await server.level(sku)) == (3, 2, 0, 1)


async def test_a_committed_reservation_cannot_be_replaced(server: Serving) -> None:
    sku = await server.put(3)
    old = (await reserve(server, (sku, 1))).reservation.reservation_id
    await server.commit(old, order_ref="order 1")
    refused = await failure(reserve(server, (sku, 1), replaces=old))
    assert refused.reason == "RESERVATION_COMMITTED"
    assert refused.metadata["order_ref"] == "order 1"
    refused = await failure(reserve(server, (sku, 1), replaces="nobody"))
    assert refused.kind == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_RESERVATION", "holdfast")


async def test_stock_that_changed_after_if_sequence_is_refused(server: Serving) -> None:
    sku = await server.put(5)
    seen = (await server.stock.GetStock(stock.GetStockRequest(skus=[sku]))).sequence
    held = await reserve(server, (sku, 1), if_sequence=seen)
    assert held.reservation.state == HELD
    answer = await reserve(server, (sku, 1), if_sequence=seen)
    assert answer.refusal.reason == types.REFUSAL_REASON_STOCK_CHANGED
    assert answer.levels[0].revision > seen
    name = held.reservation.reservation_id
    committed = await server.commit(name, if_sequence=seen)
    assert committed.refusal.reason == types.REFUSAL_REASON_STOCK_CHANGED
    assert (await server.reservation(name)).state == HELD
    assert (await server.commit(name, if_sequence=answer.sequence)).reservation.state == COMMITTED


async def test_a_channel_claims_no_more_than_its_quota(server: Serving) -> None:
    quota = inventory.ChannelQuota(channel="web", quota=3)
    sku = await server.put(10, channels=[quota])
    web = types.Context(channel="web")
    await reserve(server, (sku, 2), context=web)
    answer = await reserve(server, (sku, 2), context=web)
    assert answer.refusal.reason == types.REFUSAL_REASON_CHANNEL_QUOTA
    assert answer.refusal.lines[0].available == 1
    other = await reserve(server, (sku, 2), context=types.Context(channel="store"))
    assert other.reservation.state == HELD


async def test_a_principal_holds_no_more_than_its_budget(store: dict[str, Any]) -> None:
    async with serving(**store, hold_budget=5) as server:
        sku = await server.put(50)
        await reserve(server, (sku, 4))
        answer = await reserve(server, (sku, 2))
        assert answer.refusal.reason == types.REFUSAL_REASON_HOLD_BUDGET
        assert answer.refusal.lines[0].available == 1
        request = stock.ReserveRequest(lines=lines((sku, 5)))
        rich = await server.stock.Reserve(request, metadata=metadata("another"))
        assert rich.reservation.state == HELD
