"""InventoryService as its contract promises it, on each kind of store."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from tests.serving import (
    Serving,
    failure,
    lines,
    metadata,
    seconds,
    unique,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def put_item(
    server: Serving, sku: str, *, request_id: str = "", **policy: Any
) -> inventory.PutItemResponse:
    item = inventory.Item(sku=sku, **policy)
    request = inventory.PutItemRequest(request_id=request_id or unique(), item=item)
    return await server.inventory.PutItem(request)


async def get_item(server: Serving, sku: str) -> inventory.GetItemResponse:
    return await server.inventory.GetItem(inventory.GetItemRequest(sku=sku))


def adjustment(sku: str, delta: int, **fields: Any) -> inventory.AdjustStockRequest:
    return inventory.AdjustStockRequest(
        **{"request_id": unique(), "sku": sku, "delta": delta, **fields}
    )


def count_of(sku: str, on_hand: int, **fields: Any) -> inventory.SetStockRequest:
    return inventory.SetStockRequest(
        **{"request_id": unique(), "sku": sku, "on_hand": on_hand, **fields}
    )


# ---- Items ----


async def test_a_new_item_has_the_default_of_every_field_left_out(server: Serving) -> None:
    sku = unique()
    answer = await put_item(server, sku)
    assert answer.item == inventory.Item(
        sku=sku,
        title="",
        safety_stock=0,
        oversell_limit=0,
        oversell_share=0,
        plenty_at=100,
        low_at=5,
        scarce_at=3,
        hold_ttl_default=seconds(10),
        hold_ttl_max=seconds(900),
        hold_lifetime_max=seconds(7200),
        late_commit=types.LATE_COMMIT_REJECT,
        sellout_horizon=seconds(30),
        system_of_record="",
    )
    assert not answer.replayed
    assert answer.level.revision == answer.sequence
    assert (answer.level.on_hand, answer.level.available) == (0, 0)


async def test_a_changed_item_keeps_every_field_left_out(server: Serving) -> None:
    sku = unique()
    first = await put_item(
        server,
        sku,
        title="Köln 4711",
        safety_stock=1,
        oversell_limit=20,
        oversell_share=10,
        plenty_at=50,
        low_at=4,
        scarce_at=2,
        hold_ttl_default=seconds(5),
        hold_ttl_max=seconds(60),
        hold_lifetime_max=seconds(600),
        late_commit=types.LATE_COMMIT_REVIEW,
        sellout_horizon=seconds(0),
        system_of_record="warehouse",
        channels=[inventory.ChannelQuota(channel="web", quota=5)],
    )
    same = await put_item(server, sku, late_commit=types.LATE_COMMIT_UNSPECIFIED)
    assert same.item == first.item
    second = await put_item(
        server,
        sku,
        title="",
        safety_stock=0,
        channels=[inventory.ChannelQuota(channel="store", quota=0)],
    )
    expected = inventory.Item()
    expected.CopyFrom(first.item)
    expected.title, expected.safety_stock = "", 0
    expected.channels.add(channel="store", quota=0, used=0)
    assert second.item == expected
    third = await put_item(server, sku, channels=[inventory.ChannelQuota(channel="web")])
    assert [quota.channel for quota in third.item.channels] == ["store"]
    assert (await get_item(server, sku)).item == third.item


async def test_what_a_channel_has_used_shows_in_its_quota(server: Serving) -> None:
    sku = await server.put(9, channels=[inventory.ChannelQuota(channel="web", quota=5)])
    await server.reserve(sku, 2, context=types.Context(channel="web"))
    (quota,) = (await get_item(server, sku)).item.channels
    assert (quota.quota, quota.used) == (5, 2)


async def test_a_repeated_put_changes_nothing_and_another_payload_is_refused(
    server: Serving,
) -> None:
    sku, request_id = unique(), unique()
    first = await put_item(server, sku, request_id=request_id, safety_stock=3)
    await put_item(server, sku, safety_stock=4)
    again = await put_item(server, sku, request_id=request_id, safety_stock=3)
    assert (first.replayed, again.replayed) == (False, True)
    assert again.item.safety_stock == 4  # the current state
    refused = await failure(put_item(server, sku, request_id=request_id, safety_stock=5))
    assert refused.kind == (grpc.StatusCode.ALREADY_EXISTS, "RESERVATION_ID_REUSED", "holdfast")
    assert refused.metadata == {"id": request_id}


async def test_an_item_shows_its_stock_at_each_location_in_order(server: Serving) -> None:
    sku = await server.put()
    await server.adjust(sku, 5, "south")
    await server.adjust(sku, 7)
    await server.adjust(sku, 2, "north")
    request = stock.ReserveRequest(reservation_id=unique(), lines=lines((sku, 2, "south")))
    held = (await server.stock.Reserve(request)).sequence
    answer = await get_item(server, sku)
    found = [(place.location, place.on_hand, place.held) for place in answer.locations]
    assert found == [("default", 7, 0), ("north", 2, 0), ("south", 5, 2)]
    assert answer.locations[2].revision == held
    assert (answer.level.on_hand, answer.level.held, answer.deficit) == (14, 2, 0)


async def test_items_are_listed_in_order_page_by_page(server: Serving) -> None:
    prefix = unique("list-")
    skus = [f"{prefix}{n:02}" for n in range(7)]
    for sku in reversed(skus):
        await server.put(1, sku=sku)
        await server.adjust(sku, 1, "elsewhere")
    await server.put(sku=prefix[:-1])  # sorts just before the prefix
    pages: list[list[str]] = []
    token = ""
    while not pages or token:
        request = inventory.ListItemsRequest(page_size=3, page_token=token, sku_prefix=prefix)
        page = await server.inventory.ListItems(request)
        pages.append([entry.item.sku for entry in page.entries])
        assert all(entry.level.on_hand == 2 for entry in page.entries)
        token = page.next_page_token
    assert pages == [skus[0:3], skus[3:6], skus[6:]]


async def test_a_full_last_page_has_no_next_one(server: Serving) -> None:
    prefix = unique("list-")
    for n in range(2):
        await server.put(sku=f"{prefix}{n}")
    request = inventory.ListItemsRequest(page_size=2, sku_prefix=prefix)
    page = await server.inventory.ListItems(request)
    assert (len(page.entries), page.next_page_token) == (2, "")


async def test_skus_of_any_script_are_listed_in_order_of_their_bytes(server: Serving) -> None:
    prefix = unique("list-")
    skus = [prefix + end for end in ("é", "z", "日本", "a b", "🎁", "Ω")]
    for sku in skus:
        await server.put(sku=sku)
    request = inventory.ListItemsRequest(sku_prefix=prefix)
    page = await server.inventory.ListItems(request)
    assert [entry.item.sku for entry in page.entries] == sorted(skus, key=str.encode)


# ---- Stock ----


async def test_an_adjustment_moves_the_count_once(server: Serving) -> None:
    sku = await server.put(5)
    request = adjustment(sku, -2, location="north", reason="damaged", reference="note 1")
    first = await server.inventory.AdjustStock(request)
    assert (first.level.on_hand, first.location_stock.on_hand) == (3, -2)
    assert first.location_stock.location == "north"
    assert first.location_stock.revision == first.sequence == first.level.revision
    again = await server.inventory.AdjustStock(request)
    assert (again.replayed, again.level.on_hand) == (True, 3)
    request.delta = -3
    refused = await failure(server.inventory.AdjustStock(request))
    assert refused.reason == "RESERVATION_ID_REUSED"
    (entry,) = await server.entries(first.sequence)
    assert (entry.reason, entry.reference) == ("damaged", "note 1")


async def test_a_count_below_what_is_claimed_is_accepted_as_a_deficit(server: Serving) -> None:
    sku = await server.put(5)
    await server.reserve(sku, 4)
    answer = await server.inventory.AdjustStock(adjustment(sku, -3))
    assert (answer.deficit, answer.level.available) == (2, -2)
    assert (await get_item(server, sku)).deficit == 2


async def test_a_count_replaces_what_was_known_of_its_location(server: Serving) -> None:
    sku = await server.put(5)
    await server.adjust(sku, 4, "north")
    request = count_of(sku, 9, reason="count")
    answer = await server.inventory.SetStock(request)
    assert (answer.level.on_hand, answer.location_stock.on_hand) == (13, 9)
    await server.adjust(sku, -1)
    again = await server.inventory.SetStock(request)
    assert (again.replayed, again.level.on_hand) == (True, 12)


async def test_a_count_that_expected_another_is_refused_with_the_count_now(
    server: Serving,
) -> None:
    sku = await server.put(5)
    refused = await failure(server.inventory.SetStock(count_of(sku, 9, expected_on_hand=4)))
    assert refused.kind == (grpc.StatusCode.ABORTED, "STALE_QUANTITY", "holdfast")
    assert refused.metadata == {"on_hand": "5"}
    answer = await server.inventory.SetStock(count_of(sku, 9, expected_on_hand=5))
    assert answer.level.on_hand == 9


async def test_a_late_count_never_resurrects_what_left_after_it(server: Serving) -> None:
    sku = await server.put(10)
    counted_at = (await server.head()).sequence  # someone counts 10
    await server.adjust(sku, -3)
    await server.adjust(sku, 1)
    await server.adjust(sku, 100, "elsewhere")
    request = count_of(sku, 9, as_of_sequence=counted_at)  # and had missed one
    answer = await server.inventory.SetStock(request)
    assert answer.location_stock.on_hand == 9 - 3 + 1
    assert answer.level.on_hand == 7 + 100
    again = await server.inventory.SetStock(request)
    assert (again.replayed, again.location_stock.on_hand) == (True, 7)


async def test_a_count_as_of_now_is_taken_as_it_is(server: Serving) -> None:
    sku = await server.put(10)
    head = (await server.head()).sequence
    answer = await server.inventory.SetStock(count_of(sku, 4, as_of_sequence=head))
    assert answer.location_stock.on_hand == 4


async def test_only_the_system_of_record_counts_an_item(server: Serving) -> None:
    sku = await server.put(5, system_of_record="warehouse")
    refused = await failure(server.inventory.SetStock(count_of(sku, 9)))
    assert refused.kind == (grpc.StatusCode.PERMISSION_DENIED, "NOT_OWNER", "holdfast")
    answer = await server.inventory.SetStock(count_of(sku, 9), metadata=metadata("warehouse"))
    assert answer.level.on_hand == 9
    assert (await server.adjust(sku, -1)).level.on_hand == 8
