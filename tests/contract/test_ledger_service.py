"""LedgerService, GetStock and GetReservation as their contract promises them, on each store."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from holdfast.v1 import ledger_pb2 as ledger
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from tests.serving import Serving, failure, lines, metadata, seconds, serving, unique

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def some_entries(server: Serving, count: int = 7) -> tuple[str, int]:
    """Make an item with `count` entries in all; return its SKU and the first one's sequence."""
    before = (await server.head()).sequence
    sku = await server.put(count)
    for _ in range(count - 2):
        await server.adjust(sku, 1)
    return sku, before + 1


# ---- Reads of stock ----


async def test_levels_come_in_the_order_asked_each_once(server: Serving) -> None:
    first, second = await server.put(1), await server.put(2, safety_stock=1)
    request = stock.GetStockRequest(skus=[second, "no such", first, second, "nor this"])
    answer = await server.stock.GetStock(request)
    assert [(level.sku, level.available) for level in answer.levels] == [(second, 1), (first, 1)]
    assert list(answer.missing_skus) == ["no such", "nor this"]
    assert answer.sequence == (await server.head()).sequence
    assert answer.source == types.SOURCE_STORE
    assert not answer.HasField("staleness")
    assert len({level.as_of.ToMilliseconds() for level in answer.levels}) == 1


async def test_a_thousand_levels_come_in_one_answer(server: Serving) -> None:
    sku = await server.put(1)
    skus = [sku, *(f"no {n}" for n in range(999))]
    answer = await server.stock.GetStock(stock.GetStockRequest(skus=skus))
    assert (len(answer.levels), len(answer.missing_skus)) == (1, 999)


async def test_a_reservation_is_read_with_its_source(server: Serving) -> None:
    sku = await server.put(1)
    held = (await server.reserve(sku)).reservation
    request = stock.GetReservationRequest(reservation_id=held.reservation_id)
    answer = await server.stock.GetReservation(request)
    assert (answer.reservation, answer.source) == (held, types.SOURCE_STORE)


# ---- GetHead and ListEntries ----


async def test_the_head_of_an_empty_ledger_is_before_its_first_entry(
    store: dict[str, Any],
) -> None:
    async with serving(**store) as server:
        head = await server.head()
        assert (head.sequence, head.first_sequence) == (0, 1)
        assert head.epoch > 0
        assert (head.tree_size, head.root_hash) == (0, b"")
        assert await server.entries() == []
        answer = await server.ledger.ListEntries(ledger.ListEntriesRequest())
        assert (list(answer.entries), answer.next_page_token) == ([], "")


async def test_an_entry_tells_who_did_what_and_what_moved(server: Serving) -> None:
    sku = await server.put(5)
    context = types.Context(agent_id="agent 7", rationale="cheapest")
    request = stock.ReserveRequest(reservation_id=unique(), lines=lines((sku, 2)), context=context)
    held = await server.stock.Reserve(request, metadata=metadata("shop"))
    paying = types.Context(session_id="payment")
    sold = await server.stock.Commit(
        stock.CommitRequest(
            reservation_id=request.reservation_id, order_ref="order 1", context=paying
        ),
        metadata=metadata("shop"),
    )
    reserved, committed = await server.entries(held.sequence)
    assert (reserved.sequence, committed.sequence) == (held.sequence, sold.sequence)
    assert (reserved.kind, committed.kind) == (
        ledger.ENTRY_KIND_RESERVE,
        ledger.ENTRY_KIND_COMMIT,
    )
    assert reserved.id == committed.id == request.reservation_id
    assert reserved.principal == committed.principal == "shop"
    assert (reserved.context, committed.context) == (context, paying)
    assert list(reserved.movements) == [ledger.Movement(sku=sku, held=2)]
    assert list(committed.movements) == [ledger.Movement(sku=sku, held=-2, committed=2)]
    assert (reserved.reservation, committed.reservation) == (held.reservation, sold.reservation)
    assert committed.order_ref == "order 1"
    assert reserved.time.ToMilliseconds() == held.reservation.created_at.ToMilliseconds()
    assert reserved.epoch == (await server.head()).epoch


async def test_an_item_entry_carries_the_item_as_it_left_it(server: Serving) -> None:
    sku = await server.put(title="A thing", safety_stock=2)
    entry = await server.until(lambda entry: entry.item.sku == sku)
    assert entry.kind == ledger.ENTRY_KIND_PUT_ITEM
    assert (entry.item.title, entry.item.safety_stock) == ("A thing", 2)


async def test_entries_are_listed_page_by_page_without_a_gap(server: Serving) -> None:
    _sku, first = await some_entries(server)
    pages: list[list[int]] = []
    token = ""
    while not pages or token:
        request = ledger.ListEntriesRequest(
            from_sequence=first, through_sequence=first + 6, page_size=3, page_token=token
        )
        page = await server.ledger.ListEntries(request)
        pages.append([entry.sequence - first for entry in page.entries])
        assert page.head.sequence >= first + 6
        token = page.next_page_token
    assert [number for page in pages for number in page] == list(range(7))
    assert max(map(len, pages)) == 3


async def test_entries_of_one_item_or_one_reservation_are_found(server: Serving) -> None:
    sku, first = await some_entries(server, 3)
    name = (await server.reserve(sku)).reservation.reservation_id
    await server.put(1)
    await server.commit(name)
    filters: list[tuple[dict[str, Any], int]] = [({"sku": sku}, 5), ({"reservation_id": name}, 2)]
    for fields, expected in filters:
        found: list[ledger.LedgerEntry] = []
        token = None
        while token != "":
            request = ledger.ListEntriesRequest(page_size=2, page_token=token or "", **fields)
            page = await server.ledger.ListEntries(request)
            found += page.entries
            token = page.next_page_token
        assert len(found) == expected
        assert [entry.sequence for entry in found] == sorted(entry.sequence for entry in found)
    assert found[0].sequence > first


# ---- StreamEntries ----


async def test_a_stream_ends_where_the_ledger_ended_when_the_call_came(server: Serving) -> None:
    _sku, first = await some_entries(server)
    found = await server.entries(first)
    assert [entry.sequence for entry in found] == list(range(first, first + 7))


async def test_a_stream_that_follows_shows_each_entry_as_it_comes(server: Serving) -> None:
    sku, first = await some_entries(server, 2)
    call = server.ledger.StreamEntries(
        ledger.StreamEntriesRequest(from_sequence=first + 1, follow=True)
    )
    stream = aiter(call)
    through = first
    for step in range(3):
        part = await anext(stream)
        sequences = [entry.sequence for entry in part.entries]
        assert sequences == list(range(through + 1, through + 1 + len(sequences)))
        assert part.through_sequence == sequences[-1]
        through = part.through_sequence
        assert through == first + 1 + step
        await server.adjust(sku, 1)
    call.cancel()


async def test_two_streams_show_the_same(server: Serving) -> None:
    _sku, first = await some_entries(server)
    one, other = await asyncio.gather(server.entries(first), server.entries(first))
    assert one == other


async def test_a_stream_of_another_epoch_is_refused(server: Serving) -> None:
    head = await server.head()
    right = ledger.StreamEntriesRequest(from_sequence=head.sequence + 1, epoch=head.epoch)
    assert [part async for part in server.ledger.StreamEntries(right)] == []
    wrong = ledger.StreamEntriesRequest(epoch=head.epoch - 1)
    refused = await failure(anext(aiter(server.ledger.StreamEntries(wrong))))
    assert refused.kind == (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", "holdfast")
    assert refused.metadata["epoch"] == str(head.epoch)


async def test_a_stream_from_beyond_the_end_is_refused(server: Serving) -> None:
    head = await server.head()
    request = ledger.StreamEntriesRequest(from_sequence=head.sequence + 2, follow=True)
    refused = await failure(anext(aiter(server.ledger.StreamEntries(request))))
    assert refused.kind == (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", "holdfast")


async def test_what_the_store_no_longer_has_is_never_skipped_in_silence(
    store: dict[str, Any],
) -> None:
    async with serving(**store) as server:
        await some_entries(server)
        async with Redis.from_url(server.url) as redis:
            await redis.xtrim(f"{{c{store.get('cell', 0)}}}:ledger", minid="4-0", approximate=False)
        assert (await server.head()).first_sequence == 4
        assert [entry.sequence for entry in await server.entries()] == [4, 5, 6, 7]
        stream = server.ledger.StreamEntries(ledger.StreamEntriesRequest(from_sequence=3))
        listed = server.ledger.ListEntries(ledger.ListEntriesRequest(from_sequence=3))
        for call in (anext(aiter(stream)), listed):
            refused = await failure(call)
            kind = (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", "holdfast")
            assert refused.kind == kind


async def test_a_hold_that_expires_during_a_stream_shows_in_it(server: Serving) -> None:
    sku = await server.put(1)
    answer = await server.reserve(sku, ttl=seconds(0.1))
    entry = await server.until_expired(answer.reservation.reservation_id)
    assert list(entry.movements) == [ledger.Movement(sku=sku, held=-1)]
    assert entry.time.ToMilliseconds() >= answer.reservation.expires_at.ToMilliseconds()
