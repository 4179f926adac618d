"""How a hold ends: Commit, Release, Extend and expiry, on each kind of store."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import ledger_pb2 as ledger
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from tests.serving import (
    COMMITTED,
    EXPIRED,
    HELD,
    RELEASED,
    Serving,
    failure,
    lines,
    seconds,
    unique,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


def counts(level: types.StockLevel) -> tuple[int, int, int, int]:
    return level.on_hand, level.held, level.committed, level.available


async def hold(server: Serving, *wanted: tuple[str, int], **fields: Any) -> str:
    name = unique()
    request = stock.ReserveRequest(reservation_id=name, lines=lines(*wanted), **fields)
    assert (await server.stock.Reserve(request)).reservation.state == HELD
    return name


async def release(server: Serving, name: str, *wanted: tuple[str, int]) -> stock.ReleaseResponse:
    return await server.stock.Release(
        stock.ReleaseRequest(reservation_id=name, lines=lines(*wanted))
    )


async def extend(server: Serving, name: str, ttl_s: float) -> stock.ExtendResponse:
    return await server.stock.Extend(stock.ExtendRequest(reservation_id=name, ttl=seconds(ttl_s)))


# ---- Commit ----


async def test_a_commit_sells_the_hold_once(server: Serving) -> None:
    sku = await server.put(10)
    name = await hold(server, (sku, 4))
    first = await server.commit(name, order_ref="order 7")
    sold = first.reservation
    assert (sold.state, sold.ended_reason) == (COMMITTED, types.ENDED_REASON_COMMITTED)
    assert (sold.order_ref, sold.late, sold.sequence) == ("order 7", False, first.sequence)
    assert sold.HasField("ended_at")
    assert counts(first.levels[0]) == (10, 0, 4, 6)
    for again in (await server.commit(name), await server.commit(name, lines=lines((sku, 4)))):
        assert again.replayed
        assert again.reservation == sold
    assert counts(await server.level(sku)) == (10, 0, 4, 6)
    refused = await failure(server.commit(name, lines=lines((sku, 3))))
    assert refused.kind == (PRECONDITION, "RESERVATION_COMMITTED", "holdfast")
    assert refused.metadata["order_ref"] == "order 7"
    assert refused.metadata["ended_at_ms"] == str(sold.ended_at.ToMilliseconds())


async def test_a_partial_commit_is_final_and_gives_the_rest_back(server: Serving) -> None:
    sku, other = await server.put(10), await server.put(10)
    name = await hold(server, (sku, 4), (other, 2))
    sold = await server.commit(name, lines=lines((sku, 1), (sku, 2)))
    assert {line.sku: line.quantity for line in sold.reservation.lines} == {sku: 3, other: 0}
    assert counts(await server.level(sku)) == (10, 0, 3, 7)
    assert counts(await server.level(other)) == (10, 0, 0, 10)
    assert (await server.commit(name, lines=lines((sku, 3)))).replayed
    assert (await failure(server.commit(name))).reason == "RESERVATION_COMMITTED"


@pytest.mark.parametrize("call", ["commit", "release"])
async def test_more_than_is_held_cannot_be_had(server: Serving, call: str) -> None:
    sku, other = await server.put(10), await server.put(10)
    name = await hold(server, (sku, 4))
    for wanted, held in (((sku, 5), 4), ((other, 1), 0)):
        if call == "commit":
            refused = await failure(server.commit(name, lines=lines(wanted)))
        else:
            refused = await failure(release(server, name, wanted))
        assert refused.kind == (PRECONDITION, "EXCEEDS_HOLD", "holdfast")
        assert refused.metadata == {
            "sku": wanted[0],
            "location": "",
            "requested": str(wanted[1]),
            "held": str(held),
        }
    assert (await server.reservation(name)).state == HELD


async def test_what_never_was_cannot_end(server: Serving) -> None:
    for call in (server.commit("no"), release(server, "no"), extend(server, "no", 1)):
        refused = await failure(call)
        assert refused.kind == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_RESERVATION", "holdfast")
        assert refused.metadata == {"reservation_id": "no"}


async def test_units_that_a_recount_took_away_are_not_sold(server: Serving) -> None:
    sku = await server.put(5)
    first, second = await hold(server, (sku, 3)), await hold(server, (sku, 2))
    counted = await server.inventory.SetStock(
        inventory.SetStockRequest(request_id=unique(), sku=sku, on_hand=3)
    )
    assert (counted.deficit, counted.level.available) == (2, -2)
    assert (await server.commit(first)).reservation.state == COMMITTED
    answer = await server.commit(second)
    assert answer.refusal.reason == types.REFUSAL_REASON_STOCK_LOST
    (line,) = answer.refusal.lines
    assert (line.sku, line.requested, line.available) == (sku, 2, 0)
    assert (await server.reservation(second)).state == HELD


# ---- Release ----


async def test_a_release_gives_everything_back_once(server: Serving) -> None:
    sku = await server.put(10)
    name = await hold(server, (sku, 4))
    first = await release(server, name)
    ended = first.reservation
    assert (ended.state, ended.ended_reason) == (RELEASED, types.ENDED_REASON_RELEASED)
    assert counts(first.levels[0]) == (10, 0, 0, 10)
    assert (await release(server, name)).replayed
    assert counts(await server.level(sku)) == (10, 0, 0, 10)
    for call in (server.commit(name), extend(server, name, 60), release(server, name, (sku, 1))):
        refused = await failure(call)
        assert refused.kind == (PRECONDITION, "RESERVATION_RELEASED", "holdfast")


async def test_a_partial_release_leaves_the_rest_held_until_the_same_moment(
    server: Serving,
) -> None:
    sku = await server.put(10)
    name = await hold(server, (sku, 4))
    before = await server.reservation(name)
    first, again = await release(server, name, (sku, 1)), await release(server, name, (sku, 1))
    assert (first.replayed, again.replayed) == (False, True)
    after = again.reservation
    assert (after.state, after.expires_at) == (HELD, before.expires_at)
    assert [line.quantity for line in after.lines] == [3]
    assert counts(await server.level(sku)) == (10, 3, 0, 7)
    assert (await release(server, name, (sku, 3))).reservation.state == RELEASED
    assert counts(await server.level(sku)) == (10, 0, 0, 10)


async def test_what_is_sold_cannot_be_given_back_or_extended(server: Serving) -> None:
    sku = await server.put(10)
    name = await hold(server, (sku, 4))
    await server.commit(name)
    for call in (release(server, name), extend(server, name, 60)):
        refused = await failure(call)
        assert refused.kind == (PRECONDITION, "RESERVATION_COMMITTED", "holdfast")


# ---- Extend ----


async def test_an_extended_hold_expires_later_and_never_earlier(server: Serving) -> None:
    sku = await server.put(10)
    name = await hold(server, (sku, 1), ttl=seconds(5))
    before = (await server.reservation(name)).expires_at.ToMilliseconds()
    later = await extend(server, name, 60)
    assert not later.replayed
    assert later.reservation.expires_at.ToMilliseconds() >= before + 54_000
    earlier = await extend(server, name, 10)
    assert earlier.replayed
    assert earlier.reservation == later.reservation


async def test_a_hold_lives_no_longer_than_its_items_allow(server: Serving) -> None:
    sku = await server.put(10, hold_ttl_max=seconds(60), hold_lifetime_max=seconds(60))
    name = await hold(server, (sku, 1))
    created = (await server.reservation(name)).created_at.ToMilliseconds()
    while (await server.level(sku)).as_of.ToMilliseconds() == created:
        pass  # until the clock has moved on, 60 s from now are 60 s from then
    refused = await failure(extend(server, name, 60))
    assert refused.kind == (PRECONDITION, "LIFETIME_EXCEEDED", "holdfast")
    assert refused.metadata == {"expires_at_most_ms": str(created + 60_000)}
    assert "at most 60.000 s" in (await failure(extend(server, name, 60.001))).violations["ttl"]


# ---- Expiry ----


async def expired(server: Serving, sku: str, quantity: int = 1) -> str:
    name = await hold(server, (sku, quantity), ttl=seconds(0.1))
    await server.until_expired(name)
    return name


async def test_an_idle_server_ends_a_due_hold_by_itself(server: Serving) -> None:
    sku = await server.put(3)
    name = await expired(server, sku, 3)
    ended = await server.reservation(name)
    assert (ended.state, ended.ended_reason) == (EXPIRED, types.ENDED_REASON_EXPIRED)
    assert counts(await server.level(sku)) == (3, 0, 0, 3)
    for call in (server.commit(name), release(server, name), extend(server, name, 60)):
        refused = await failure(call)
        assert refused.kind == (PRECONDITION, "RESERVATION_EXPIRED", "holdfast")
        assert refused.metadata["reservation_id"] == name


async def test_a_late_commit_retries_if_the_item_says_so_and_the_units_are_free(
    server: Serving,
) -> None:
    sku = await server.put(2, late_commit=types.LATE_COMMIT_RETRY)
    first, second = await expired(server, sku, 2), await expired(server, sku, 1)
    sold = await server.commit(first)
    assert (sold.reservation.state, sold.reservation.late) == (COMMITTED, True)
    assert counts(sold.levels[0]) == (2, 0, 2, 0)
    refused = await failure(server.commit(second))
    assert refused.kind == (PRECONDITION, "RESERVATION_EXPIRED", "holdfast")
    assert (await server.commit(first)).replayed


async def test_a_late_commit_under_review_takes_from_the_oversell_allowance(
    server: Serving,
) -> None:
    sku = await server.put(1, late_commit=types.LATE_COMMIT_REVIEW, oversell_limit=1)
    late, too_late = await expired(server, sku), await expired(server, sku)
    await server.commit(await hold(server, (sku, 1)))
    sold = (await server.commit(late)).reservation
    assert (sold.state, sold.late, sold.lines[0].backordered) == (COMMITTED, True, 1)
    assert (await failure(server.commit(too_late))).reason == "RESERVATION_EXPIRED"


async def test_with_several_items_every_one_must_allow_a_late_commit(server: Serving) -> None:
    strict, lenient = await server.put(5), await server.put(5, late_commit=types.LATE_COMMIT_RETRY)
    name = await hold(server, (strict, 1), (lenient, 1), ttl=seconds(0.1))
    await server.until_expired(name)
    assert (await failure(server.commit(name))).reason == "RESERVATION_EXPIRED"


async def test_a_hold_that_ends_is_one_entry_of_the_ledger(server: Serving) -> None:
    sku = await server.put(9)
    start = (await server.head()).sequence + 1
    sold, given_back = await hold(server, (sku, 2)), await hold(server, (sku, 2))
    await server.commit(sold)
    await release(server, given_back)
    ran_out = await expired(server, sku)
    kinds: dict[str, list[int]] = {}
    for entry in await server.entries(start):
        kinds.setdefault(entry.id, []).append(entry.kind)
    assert kinds[sold] == [ledger.ENTRY_KIND_RESERVE, ledger.ENTRY_KIND_COMMIT]
    assert kinds[given_back] == [ledger.ENTRY_KIND_RESERVE, ledger.ENTRY_KIND_RELEASE]
    assert kinds[ran_out] == [ledger.ENTRY_KIND_RESERVE, ledger.ENTRY_KIND_EXPIRE]
