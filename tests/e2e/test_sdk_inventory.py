"""The SDK's calls for operators and auditors: one suite for every client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast import (
    AsyncClient,
    Context,
    EntryKind,
    LateCommit,
    ReservationState,
    ResumeTokenExpired,
    Row,
    StaleQuantity,
)
from tests.e2e.clients import item, unique
from tests.serving import Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELD = ReservationState.HELD


async def test_an_item_keeps_the_policy_that_is_not_given(client: Any) -> None:
    sku = unique()
    first = await client.put_item(sku, title="Lamp", safety_stock=2, late_commit=LateCommit.RETRY)
    assert (first.item.title, first.item.safety_stock, first.replayed) == ("Lamp", 2, False)
    assert (first.item.hold_ttl_default, first.item.hold_lifetime_max) == (10.0, 7200.0)
    second = await client.put_item(sku, safety_stock=3, request_id=(request_id := unique()))
    assert (second.item.title, second.item.safety_stock) == ("Lamp", 3)
    assert second.item.late_commit is LateCommit.RETRY
    assert (await client.put_item(sku, safety_stock=3, request_id=request_id)).replayed


async def test_stock_is_counted_by_location(client: Any) -> None:
    sku = await item(client, 0)
    added = await client.adjust_stock(sku, 5, location="north", reason="delivery", reference="d-1")
    assert (added.location_stock.location, added.location_stock.on_hand) == ("north", 5)
    counted = await client.set_stock(sku, 3, location="south")
    assert (counted.level.on_hand, counted.deficit, counted.replayed) == (8, 0, False)
    detail = await client.get_item(sku)
    assert [tuple(place)[:2] for place in detail.locations] == [("north", 5), ("south", 3)]
    with pytest.raises(StaleQuantity) as caught:
        await client.set_stock(sku, 9, location="north", expected_on_hand=4)
    assert caught.value.on_hand == 5


async def test_items_are_listed_over_all_pages(client: Any) -> None:
    prefix = unique()
    rows = [Row(f"{prefix}-{number:02}", {"": number}) for number in range(7)]
    await client.import_items(rows)
    listed = [entry async for entry in client.list_items(prefix, page_size=3)]
    assert [entry.item.sku for entry in listed] == [row.sku for row in rows]
    assert [entry.level.on_hand for entry in listed] == [*range(7)]


async def test_a_bad_row_of_an_import_fails_alone(client: Any) -> None:
    prefix, request_id = unique(), unique()
    rows = [
        Row(f"{prefix}-good", {"north": 2, "south": 3}, {"title": "Lamp"}, number=10),
        Row(f"{prefix}-bad", {"": -1}, number=11),
        Row(f"{prefix}-none"),
    ]
    imported = await client.import_items(rows, request_id=request_id)
    assert (imported.imported, imported.failed) == (2, 1)
    (error,) = imported.errors
    assert (error.row, error.sku, error.reason) == (11, f"{prefix}-bad", "INVALID_ARGUMENT")
    assert "on_hand" in error.field
    assert (await client.get_item(f"{prefix}-good")).level.on_hand == 5
    head = (await client.get_head())[0].sequence
    assert await client.import_items(rows, request_id=request_id) == imported
    assert (await client.get_head())[0].sequence == head


async def test_a_large_import_goes_in_parts(client: Any) -> None:
    prefix = unique()
    imported = await client.import_items(Row(f"{prefix}-{number}") for number in range(1_203))
    assert (imported.imported, imported.failed) == (1_203, 0)


async def test_rows_may_come_as_they_are_made(server: Serving) -> None:
    prefix = unique()

    async def rows() -> AsyncIterator[Row]:
        for number in range(3):
            await asyncio.sleep(0)
            yield Row(f"{prefix}-{number}")

    async with AsyncClient(server.target) as client:
        assert (await client.import_items(rows())).imported == 3


async def test_an_error_of_the_rows_is_not_lost(client: Any) -> None:
    def rows() -> Any:
        yield Row(unique())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await client.import_items(rows())


async def test_the_ledger_tells_what_happened(client: Any) -> None:
    (before,) = await client.get_head()
    sku = await item(client, 4)
    reservation_id = (await client.reserve([(sku, 2)])).reservation.reservation_id
    await client.commit(reservation_id, order_ref="o-4", context=Context(rationale="paid"))
    start = before.sequence + 1
    found = client.list_entries(sku=sku, from_sequence=start, page_size=2)
    listed = [entry async for entry in found]
    kinds = [EntryKind.PUT_ITEM, EntryKind.ADJUST_STOCK, EntryKind.RESERVE, EntryKind.COMMIT]
    assert [entry.kind for entry in listed] == kinds
    put, added, reserved, committed = listed
    assert put.item is not None
    assert (put.item.sku, put.reservation) == (sku, None)
    assert (added.movements[0].on_hand, added.principal) == (4, "me")
    assert (reserved.reservation.state, reserved.movements[0].held) == (HELD, 2)
    assert (committed.order_ref, committed.context.rationale) == ("o-4", "paid")
    assert (committed.cell, committed.epoch) == (before.cell, before.epoch)
    found = client.list_entries(reservation_id=reservation_id, from_sequence=start)
    assert [entry async for entry in found] == [reserved, committed]


async def test_the_ledger_is_streamed_without_a_gap(client: Any) -> None:
    (before,) = await client.get_head()
    sku = await item(client, 4)
    start = before.sequence + 1
    listed = [entry async for entry in client.list_entries(from_sequence=start)]
    stream = client.stream_entries(start, epoch=before.epoch, follow=False)
    streamed = [entry async for entry in stream]
    assert streamed[: len(listed)] == listed
    assert [entry.sequence for entry in streamed] == [*range(start, start + len(streamed))]
    assert sku in {entry.item.sku for entry in streamed if entry.item}


async def test_a_ledger_of_another_epoch_is_not_followed(client: Any) -> None:
    with pytest.raises(ResumeTokenExpired):
        async for _entry in client.stream_entries(1, epoch=1):
            pass


async def test_a_stream_of_entries_follows(server: Serving) -> None:
    async with AsyncClient(server.target) as client:
        sku = await item(client, 0)
        (head,) = await client.get_head()
        following = client.stream_entries(head.sequence + 1)
        first = asyncio.ensure_future(anext(following))
        added = await client.adjust_stock(sku, 1)
        assert (await first).sequence == added.sequence
        await following.aclose()  # type: ignore[attr-defined]
