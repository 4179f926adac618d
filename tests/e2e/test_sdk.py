"""The SDK's calls for agents against a running server: one suite for every client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from holdfast import (
    ChannelQuotaExceeded,
    Context,
    EndedReason,
    ExceedsHold,
    InvalidArgument,
    LifetimeExceeded,
    NotOwner,
    OutOfStock,
    ReservationCommitted,
    ReservationExpired,
    ReservationIdReused,
    ReservationState,
    ReservationSuperseded,
    Source,
    StockChanged,
    StockLost,
    UnknownReservation,
    UnknownSku,
)
from tests.e2e.clients import held_of, item, unique
from tests.serving import Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELD, COMMITTED, RELEASED = (
    ReservationState.HELD,
    ReservationState.COMMITTED,
    ReservationState.RELEASED,
)


async def test_a_reservation_lives_from_reserve_to_commit(client: Any) -> None:
    sku, me = await item(client), Context("agent", "session", rationale="asked for two")
    reserved = await client.reserve([(sku, 1), (sku, 1)], ttl=5, context=me)
    record = reserved.reservation
    assert [tuple(line) for line in record.lines] == [(sku, 2, 0, "")]
    assert (record.state, record.principal, record.context) == (HELD, "me", me)
    assert (record.expires_at - record.created_at).total_seconds() == 5
    assert [(level.sku, level.held, level.available) for level in reserved.levels] == [(sku, 2, 8)]
    assert (reserved.replayed, reserved.sequence) == (False, record.sequence)

    committed = await client.commit(record.reservation_id, order_ref="o-1")
    ended = committed.reservation
    assert (ended.state, ended.ended_reason) == (COMMITTED, EndedReason.COMMITTED)
    assert (ended.order_ref, ended.late) == ("o-1", False)
    assert ended.ended_at is not None
    assert ended.ended_at.tzinfo is not None
    assert committed.levels[0].committed == 2
    assert await client.get_reservation(record.reservation_id) == ended


async def test_a_partial_commit_gives_the_rest_back(client: Any) -> None:
    sku, other = await item(client), await item(client)
    reserved = await client.reserve([(sku, 3), (other, 1)])
    committed = await client.commit(reserved.reservation.reservation_id, [(sku, 2)])
    assert {line.sku: line.quantity for line in committed.reservation.lines} == {sku: 2, other: 0}
    assert await held_of(client, other) == 0


async def test_a_release_gives_back_what_it_names(client: Any) -> None:
    sku = await item(client)
    reservation_id = (await client.reserve([(sku, 3)])).reservation.reservation_id
    part = await client.release(reservation_id, [(sku, 1)])
    assert (part.reservation.state, part.levels[0].held) == (HELD, 2)
    rest = await client.release(reservation_id)
    assert (rest.reservation.state, rest.levels[0].held) == (RELEASED, 0)
    assert (await client.release(reservation_id)).replayed


async def test_an_extend_moves_the_expiry_and_never_back(client: Any) -> None:
    sku = await item(client)
    record = (await client.reserve(sku, ttl=5)).reservation
    longer = await client.extend(record.reservation_id, 60)
    assert longer.reservation.expires_at > record.expires_at
    shorter = await client.extend(record.reservation_id, 1)
    assert (shorter.replayed, shorter.reservation) == (True, longer.reservation)


async def test_the_same_id_is_the_same_reservation(client: Any) -> None:
    sku, reservation_id = await item(client), unique()
    first = await client.reserve([(sku, 2)], reservation_id=reservation_id)
    again = await client.reserve([(sku, 2)], reservation_id=reservation_id)
    assert (first.replayed, again.replayed) == (False, True)
    assert first.reservation == again.reservation
    with pytest.raises(ReservationIdReused) as caught:
        await client.reserve([(sku, 3)], reservation_id=reservation_id)
    assert caught.value.id == reservation_id


async def test_stock_is_read_in_the_order_asked(client: Any) -> None:
    first, second, none = await item(client, 5), await item(client, 6), unique()
    stock = await client.get_stock([second, none, first])
    assert [level.available for level in stock.levels] == [6, 5]
    assert stock.by_sku[first].available == 5
    assert stock.missing_skus == (none,)
    assert (stock.source, stock.staleness) == (Source.STORE, 0.0)


async def test_sold_out_raises_what_could_be_had(client: Any) -> None:
    plenty, scarce = await item(client), await item(client, 3)
    held = (await client.reserve([(scarce, 1)], ttl=30)).reservation
    with pytest.raises(OutOfStock) as caught:
        await client.reserve([(plenty, 1), (scarce, 5)], reservation_id="refused")
    (line,) = caught.value.lines
    assert (line.sku, line.location, line.requested, line.available) == (scarce, "", 5, 2)
    assert line.next_expiry_at == held.expires_at
    assert {level.sku for level in caught.value.levels} == {plenty, scarce}
    assert (caught.value.reason, caught.value.idempotency_key) == ("OUT_OF_STOCK", "refused")
    assert caught.value.sequence > 0
    assert await held_of(client, plenty) == 0


async def test_a_part_may_be_taken_instead(client: Any) -> None:
    sku = await item(client, 3)
    reserved = await client.reserve([(sku, 5)], allow_partial=True)
    assert reserved.reservation.lines[0].quantity == 3


async def test_units_beyond_stock_are_marked(client: Any) -> None:
    sku = await item(client, 3, oversell_limit=5)
    reserved = await client.reserve([(sku, 5)], allow_backorder=True)
    assert reserved.reservation.lines[0].backordered == 2


async def test_a_change_since_it_was_read_is_refused(client: Any) -> None:
    sku = await item(client)
    seen = await client.get_stock(sku)
    await client.adjust_stock(sku, 1)
    with pytest.raises(StockChanged) as caught:
        await client.reserve(sku, if_sequence=seen.sequence)
    assert caught.value.levels[0].available == 11
    reserved = await client.reserve(sku, if_sequence=caught.value.sequence)
    await client.adjust_stock(sku, 1)
    with pytest.raises(StockChanged):
        await client.commit(reserved.reservation.reservation_id, if_sequence=reserved.sequence)


async def test_a_channel_sells_within_its_quota(client: Any) -> None:
    sku = await item(client, channels={"web": 2})
    with pytest.raises(ChannelQuotaExceeded) as caught:
        await client.reserve([(sku, 3)], context=Context(channel="web"))
    assert caught.value.lines[0].available == 2
    await client.reserve([(sku, 3)], context=Context(channel="app"))


async def test_a_recount_can_take_a_hold_away(client: Any) -> None:
    sku = await item(client, 5)
    reserved = await client.reserve([(sku, 5)])
    await client.set_stock(sku, 0)
    with pytest.raises(StockLost) as caught:
        await client.commit(reserved.reservation.reservation_id)
    assert caught.value.lines[0].sku == sku


async def test_one_reservation_takes_the_place_of_another(client: Any) -> None:
    sku = await item(client, 2)
    old = (await client.reserve([(sku, 2)])).reservation.reservation_id
    new = (await client.reserve([(sku, 1)], replaces=old)).reservation.reservation_id
    with pytest.raises(ReservationSuperseded) as caught:
        await client.commit(old)
    assert (caught.value.reservation_id, caught.value.replaced_by) == (old, new)


# ---- What can go wrong ----


async def test_what_does_not_exist_is_named(client: Any) -> None:
    none, sku = unique(), await item(client)
    with pytest.raises(UnknownSku) as unknown:
        await client.reserve([(sku, 1), (none, 1)])
    assert unknown.value.skus == (none,)
    with pytest.raises(UnknownReservation) as caught:
        await client.commit(none)
    assert (caught.value.reservation_id, caught.value.idempotency_key) == (none, none)
    with pytest.raises(UnknownSku):
        await client.get_item(none)


async def test_a_bad_argument_is_named_with_its_limit(client: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await client.reserve([("A", 1), ("B", 0)], ttl=0)
    limits = dict(caught.value.violations)
    assert limits.keys() == {"lines[1].quantity", "ttl"}
    assert "0.1 s" in limits["ttl"]


async def test_more_than_was_held_is_refused(client: Any) -> None:
    sku = await item(client)
    reservation_id = (await client.reserve([(sku, 2)])).reservation.reservation_id
    with pytest.raises(ExceedsHold) as caught:
        await client.commit(reservation_id, [(sku, 3)])
    error = caught.value
    assert (error.sku, error.location, error.requested, error.held) == (sku, "", 3, 2)


async def test_an_end_is_told_with_its_time(client: Any) -> None:
    sku = await item(client)
    reservation_id = (await client.reserve(sku)).reservation.reservation_id
    ended = (await client.commit(reservation_id, order_ref="o-2")).reservation
    with pytest.raises(ReservationCommitted) as caught:
        await client.release(reservation_id)
    assert (caught.value.ended_at, caught.value.order_ref) == (ended.ended_at, "o-2")
    assert caught.value.sequence == ended.sequence


async def test_a_hold_that_ran_out_cannot_be_committed(client: Any, server: Serving) -> None:
    sku = await item(client)
    reservation_id = (await client.reserve(sku, ttl=0.1)).reservation.reservation_id
    await server.until_expired(reservation_id)
    with pytest.raises(ReservationExpired) as caught:
        await client.commit(reservation_id)
    assert caught.value.reservation_id == reservation_id


async def test_a_hold_has_a_longest_life(client: Any) -> None:
    sku = await item(client, hold_ttl_default=1, hold_ttl_max=2, hold_lifetime_max=2)
    record = (await client.reserve(sku)).reservation
    await asyncio.sleep(0.01)
    with pytest.raises(LifetimeExceeded) as caught:
        await client.extend(record.reservation_id, 2)
    assert (caught.value.expires_at_most - record.created_at).total_seconds() == 2


async def test_a_reservation_is_its_owners(
    client: Any, server: Serving, new_client: Callable[..., Any]
) -> None:
    sku = await item(client)
    reservation_id = (await client.reserve(sku)).reservation.reservation_id
    async with new_client(server.target, principal="another") as other:
        with pytest.raises(NotOwner):
            await other.commit(reservation_id)
        with pytest.raises(NotOwner):
            await other.get_reservation(reservation_id)
