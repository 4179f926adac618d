"""Calls that are wrong as a whole: not the caller's, too large, no message, or bad in part."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from tests.contract.requests import (
    ID_LIMIT,
    SKU,
    THEIRS,
    TTL_MAX_S,
    commit,
    extend,
    release,
    reserve,
    rpc_of,
)
from tests.serving import (
    Serving,
    digest,
    failure,
    failure_of_status,
    lines,
    metadata,
    raw,
    seconds,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    "request_",
    [
        commit(reservation_id=THEIRS),
        release(reservation_id=THEIRS),
        extend(reservation_id=THEIRS),
        stock.GetReservationRequest(reservation_id=THEIRS),
        reserve(replaces=THEIRS),
    ],
    ids=["commit", "release", "extend", "get", "replace"],
)
async def test_what_another_principal_reserved_is_out_of_reach(
    shop: Serving, request_: Message
) -> None:
    before = await digest(shop.url)
    refused = await failure(rpc_of(shop, request_)(request_))
    assert refused.kind == (grpc.StatusCode.PERMISSION_DENIED, "NOT_OWNER", "holdfast")
    assert refused.metadata == {"id": THEIRS}
    assert await digest(shop.url) == before


async def test_another_principal_cannot_learn_an_id_by_reserving_it_again(shop: Serving) -> None:
    refused = await failure(shop.stock.Reserve(reserve(reservation_id=THEIRS)))
    assert refused.kind == (grpc.StatusCode.ALREADY_EXISTS, "RESERVATION_ID_REUSED", "holdfast")


@pytest.mark.parametrize("principal", ["", "a b", "x" * 129, "semi;colon"])
async def test_an_ill_formed_principal_is_refused(shop: Serving, principal: str) -> None:
    call = shop.stock.Reserve(reserve(), metadata=metadata(principal))
    refused = await failure(call)
    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")
    assert "1 to 128" in refused.violations["metadata.holdfast-principal"]


async def test_a_message_over_one_mebibyte_is_refused(shop: Serving) -> None:
    before = await digest(shop.url)
    request = reserve(context=types.Context(rationale="x" * (1 << 20)))
    refused = await failure(shop.stock.Reserve(request))
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(1 << 20) in refused.message
    assert await digest(shop.url) == before


@pytest.mark.parametrize(
    "method",
    [
        "StockService/Reserve",
        "StockService/GetStock",
        "InventoryService/PutItem",
        "LedgerService/ListEntries",
    ],
)
async def test_bytes_that_are_no_protobuf_are_refused(shop: Serving, method: str) -> None:
    before = await digest(shop.url)
    for noise in (b"\xff\xff\xff\xff", b"\x0a\x7f"):
        refused = await failure(raw(shop, f"/holdfast.v1.{method}")(noise))
        assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")
    assert await digest(shop.url) == before


async def test_text_that_is_no_utf_8_is_refused(shop: Serving) -> None:
    call = raw(shop, "/holdfast.v1.StockService/Reserve")
    refused = await failure(call(b"\x0a\x02\xc3\x28"))
    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")


async def answers(
    shop: Serving, *frames: list[stock.PipelineOperation]
) -> list[stock.PipelineResult]:
    requests = [stock.PipelineRequest(operations=frame) for frame in frames]
    call = shop.stock.Pipeline(iter(requests))
    return [result async for response in call for result in response.results]


async def test_a_bad_operation_of_a_frame_fails_alone(shop: Serving) -> None:
    operation = stock.PipelineOperation
    sku = await shop.put(10)
    piped = reserve(reservation_id="piped", lines=lines((sku, 1)), ttl=seconds(TTL_MAX_S))
    frame = [
        operation(tag=1, reserve=piped),
        operation(tag=2, reserve=reserve(reservation_id="a b", lines=lines((sku, 1)))),
        operation(tag=3),
        operation(tag=4, commit=commit(reservation_id=THEIRS)),
        operation(tag=5, release=release(reservation_id="nobody")),
        operation(tag=6, extend=extend(reservation_id="piped", ttl=seconds(0))),
        operation(tag=7, get_stock=stock.GetStockRequest(skus=[sku])),
    ]
    results = {result.tag: result for result in await answers(shop, frame)}
    errors = {
        tag: failure_of_status(result.error)
        for tag, result in results.items()
        if result.HasField("error")
    }
    assert results[1].reserve.reservation.reservation_id == "piped"
    assert results[7].get_stock.levels[0].held == 1
    assert {tag: error.reason for tag, error in errors.items()} == {
        2: "INVALID_ARGUMENT",
        3: "INVALID_ARGUMENT",
        4: "NOT_OWNER",
        5: "UNKNOWN_RESERVATION",
        6: "INVALID_ARGUMENT",
    }
    assert ID_LIMIT in errors[2].violations["reservation_id"]
    assert "reserve, commit" in errors[3].violations["operation"]
    assert errors[4].code is grpc.StatusCode.PERMISSION_DENIED
    assert errors[5].metadata == {"reservation_id": "nobody"}
    assert "from 0.1 s" in errors[6].violations["ttl"]
    assert {error.domain for error in errors.values()} == {"holdfast"}


async def test_a_frame_of_too_many_operations_ends_the_stream_after_what_came_before(
    shop: Serving,
) -> None:
    operation = stock.PipelineOperation(get_stock=stock.GetStockRequest(skus=[SKU]))
    full = stock.PipelineRequest(operations=[operation] * 256)
    assert len(await answers(shop, list(full.operations))) == 256
    over = stock.PipelineRequest(operations=[operation] * 257)
    call = shop.stock.Pipeline(iter([full, over]))
    first = await call.read()
    assert isinstance(first, stock.PipelineResponse)
    assert len(first.results) == 256
    refused = await failure(call.read())
    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")
    assert "at most 256 a frame, not 257" in refused.violations["operations"]


async def test_an_empty_frame_is_answered_by_an_empty_one(shop: Serving) -> None:
    assert await answers(shop, [], []) == []


async def test_bad_rows_of_an_import_fail_alone(shop: Serving) -> None:
    prefix = "import-"

    def row(number: int, sku: str, *, on_hand: int = 7, **policy: Any) -> inventory.ImportRow:
        return inventory.ImportRow(
            row=number,
            item=inventory.Item(sku=sku, **policy),
            stock=[inventory.ImportStock(on_hand=on_hand)],
        )

    rows = [
        row(1, f"{prefix}a"),
        row(2, "bell\x07"),
        row(3, f"{prefix}c", on_hand=-1),
        row(4, f"{prefix}d", safety_stock=-1),
        row(5, f"{prefix}e"),
        row(6, f"{prefix}f", low_at=200),
    ]
    request = inventory.ImportRequest(request_id="import", rows=rows)
    answer = await shop.inventory.Import(iter([request]))
    assert (answer.imported, answer.failed) == (2, 4)
    assert [(bad.row, bad.sku, bad.reason, bad.field) for bad in answer.errors] == [
        (2, "bell\x07", "INVALID_ARGUMENT", "item.sku"),
        (3, f"{prefix}c", "INVALID_ARGUMENT", "stock[0].on_hand"),
        (4, f"{prefix}d", "INVALID_ARGUMENT", "item.safety_stock"),
        (6, f"{prefix}f", "INVALID_ARGUMENT", "item.low_at"),
    ]
    page = await shop.inventory.ListItems(inventory.ListItemsRequest(sku_prefix=prefix))
    found = {entry.item.sku: entry.level.on_hand for entry in page.entries}
    assert found == {f"{prefix}a": 7, f"{prefix}e": 7}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (inventory.ImportRequest(rows=[inventory.ImportRow()]), "request_id"),
        (
            inventory.ImportRequest(request_id="i", rows=[inventory.ImportRow()] * 1001),
            "rows",
        ),
    ],
    ids=["no request_id", "1001 rows"],
)
async def test_a_bad_message_ends_the_import(
    shop: Serving, request_: inventory.ImportRequest, field: str
) -> None:
    refused = await failure(shop.inventory.Import(iter([request_])))
    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")
    assert field in refused.violations
