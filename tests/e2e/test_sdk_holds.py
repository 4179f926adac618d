"""Holds as blocks against a running server: one suite for every client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import (
    AsyncClient,
    LifetimeExceeded,
    OutOfStock,
    ReservationExpired,
    ReservationReleased,
    ReservationState,
    StockChanged,
)
from tests.e2e.clients import held_of, item, unique
from tests.serving import Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELD, COMMITTED, RELEASED, EXPIRED = (
    ReservationState.HELD,
    ReservationState.COMMITTED,
    ReservationState.RELEASED,
    ReservationState.EXPIRED,
)


async def test_a_hold_extends_itself_until_it_is_committed(client: Any, server: Serving) -> None:
    sku = await item(client)
    async with client.hold([(sku, 2)], ttl=0.3) as hold:
        first = hold.reservation.expires_at
        assert hold.levels[0].held == 2
        for _ in range(2):
            start = hold.reservation.sequence + 1
            await server.until(
                lambda entry: entry.id == hold.reservation_id and "EXTEND" in str(entry),
                from_sequence=start,
            )
        committed = await hold.commit(order_ref="o-3")
    assert committed.reservation.state is COMMITTED
    assert committed.reservation.expires_at > first
    assert hold.reservation == committed.reservation
    assert hold.extension_error is None
    assert (await client.get_reservation(hold.reservation_id)).state is COMMITTED


async def test_a_hold_is_given_back_at_the_end_of_its_block(client: Any) -> None:
    sku = await item(client)
    async with client.hold(sku, reservation_id=(reservation_id := unique())) as hold:
        assert await held_of(client, sku) == 1
    assert hold.reservation_id == reservation_id
    assert (await client.get_reservation(reservation_id)).state is RELEASED


async def test_a_hold_is_given_back_when_its_block_fails(client: Any) -> None:
    sku = await item(client)
    with pytest.raises(ZeroDivisionError):
        async with client.hold([(sku, 3)]):
            raise ZeroDivisionError
    assert await held_of(client, sku) == 0


async def test_a_hold_may_be_given_back_early_and_in_part(client: Any) -> None:
    sku = await item(client)
    async with client.hold([(sku, 3)]) as hold:
        await hold.release([(sku, 1)])
        assert (hold.reservation.state, await held_of(client, sku)) == (HELD, 2)
        await hold.release()
        assert (hold.reservation.state, await held_of(client, sku)) == (RELEASED, 0)


async def test_a_refused_hold_does_not_run_its_block(client: Any) -> None:
    sku = await item(client, 1)
    with pytest.raises(OutOfStock):
        async with client.hold([(sku, 2)]):
            pytest.fail("the block ran")


async def test_a_hold_that_was_lost_says_so_at_its_commit(client: Any) -> None:
    sku = await item(client)
    async with client.hold(sku) as hold:
        await client.release(hold.reservation_id)
        with pytest.raises(ReservationReleased):
            await hold.commit()


async def test_a_hold_that_cannot_be_extended_any_more_keeps_why(
    client: Any, server: Serving
) -> None:
    sku = await item(client, hold_ttl_default=0.1, hold_ttl_max=0.3, hold_lifetime_max=0.4)
    async with client.hold(sku, ttl=0.3) as hold:
        await server.until_expired(hold.reservation_id)
        with pytest.raises(ReservationExpired):
            await hold.commit()
    assert isinstance(hold.extension_error, LifetimeExceeded)


async def test_leaving_a_hold_that_ran_out_is_no_error(client: Any, server: Serving) -> None:
    sku = await item(client, hold_ttl_default=0.1, hold_ttl_max=0.3, hold_lifetime_max=0.4)
    async with client.hold(sku, ttl=0.3) as hold:
        await server.until_expired(hold.reservation_id)
    assert (await client.get_reservation(hold.reservation_id)).state is EXPIRED


async def test_a_refused_commit_leaves_the_hold_as_it_was(client: Any) -> None:
    sku = await item(client)
    async with client.hold(sku) as hold:
        await client.adjust_stock(sku, 1)
        with pytest.raises(StockChanged) as caught:
            await hold.commit(if_sequence=hold.reservation.sequence)
        await hold.commit(if_sequence=caught.value.sequence)
    assert hold.reservation.state is COMMITTED


@pytest.mark.parametrize("coalesce", [True, False])
async def test_a_cancelled_block_gives_its_hold_back(server: Serving, coalesce: bool) -> None:
    async with AsyncClient(server.target, coalesce=coalesce) as client:
        sku, entered = await item(client), asyncio.Event()

        async def body() -> None:
            async with client.hold(sku):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(body())
        await entered.wait()
        assert await held_of(client, sku) == 1
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()  # once more, while it gives back
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await held_of(client, sku) == 0
