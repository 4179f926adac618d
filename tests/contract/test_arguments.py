"""Bad input over the wire: refused with its field and limit named, and nothing changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import ledger_pb2 as ledger
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from tests.serving import (
    Serving,
    digest,
    failure,
    failure_of_status,
    lines,
    metadata,
    seconds,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

SKU, OTHER_SKU, MINE, THEIRS = "known", "known too", "mine", "theirs"
UNITS_MAX = 1_000_000_000
TTL_MAX_S = 900  # the default hold_ttl_max


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(embedded: Serving) -> AsyncIterator[Serving]:
    """A server with two items and two holds that no test here may change."""
    for sku in (SKU, OTHER_SKU):
        await embedded.put(100, sku=sku)
    long = seconds(TTL_MAX_S)
    await embedded.reserve(SKU, 5, reservation_id=MINE, ttl=long)
    request = stock.ReserveRequest(reservation_id=THEIRS, lines=lines((SKU, 5)), ttl=long)
    await embedded.stock.Reserve(request, metadata=metadata("somebody"))
    yield embedded


def reserve(**fields: Any) -> stock.ReserveRequest:
    return stock.ReserveRequest(**{"reservation_id": "new", "lines": lines((SKU, 1)), **fields})


def commit(**fields: Any) -> stock.CommitRequest:
    return stock.CommitRequest(**{"reservation_id": MINE, **fields})


def release(**fields: Any) -> stock.ReleaseRequest:
    return stock.ReleaseRequest(**{"reservation_id": MINE, **fields})


def extend(**fields: Any) -> stock.ExtendRequest:
    return stock.ExtendRequest(**{"reservation_id": MINE, "ttl": seconds(TTL_MAX_S), **fields})


def put_item(**fields: Any) -> inventory.PutItemRequest:
    item = inventory.Item(**{"sku": SKU, **fields})
    return inventory.PutItemRequest(request_id="put", item=item)


def adjust(**fields: Any) -> inventory.AdjustStockRequest:
    return inventory.AdjustStockRequest(
        **{"request_id": "adjust", "sku": SKU, "delta": 1, **fields}
    )


def set_stock(**fields: Any) -> inventory.SetStockRequest:
    return inventory.SetStockRequest(**{"request_id": "set", "sku": SKU, "on_hand": 1, **fields})


RPCS = {
    stock.ReserveRequest: "stock.Reserve",
    stock.CommitRequest: "stock.Commit",
    stock.ReleaseRequest: "stock.Release",
    stock.ExtendRequest: "stock.Extend",
    stock.GetReservationRequest: "stock.GetReservation",
    stock.GetStockRequest: "stock.GetStock",
    inventory.PutItemRequest: "inventory.PutItem",
    inventory.GetItemRequest: "inventory.GetItem",
    inventory.ListItemsRequest: "inventory.ListItems",
    inventory.AdjustStockRequest: "inventory.AdjustStock",
    inventory.SetStockRequest: "inventory.SetStock",
    ledger.ListEntriesRequest: "ledger.ListEntries",
}


def rpc_of(client: Serving, request: Message) -> Any:
    service, _, method = RPCS[type(request)].partition(".")
    return getattr(getattr(client, service), method)


class Bad(NamedTuple):
    """A request, the field that is bad in it, and the limit that the answer must name."""

    request: Message
    field: str
    limit: str


ID_LIMIT = "1 to 64 of [A-Za-z0-9._:-]"
UNITS_LIMIT = f"from 1 to {UNITS_MAX}"
SKU_LIMIT = "1 to 128 printable characters"
ILL_FORMED = ["x" * 65, "a b", "a/b", "käse", "line\n", "\x00"]
LONG = "x" * 1025

IDS = [
    *(Bad(reserve(reservation_id=bad), "reservation_id", ID_LIMIT) for bad in ILL_FORMED),
    *(Bad(reserve(replaces=bad), "replaces", ID_LIMIT) for bad in ILL_FORMED),
    *(
        Bad(request(reservation_id=bad), "reservation_id", ID_LIMIT)
        for request in (commit, release, extend, stock.GetReservationRequest)
        for bad in ("", *ILL_FORMED)
    ),
    *(
        Bad(request(request_id=bad), "request_id", ID_LIMIT)
        for request in (adjust, set_stock)
        for bad in ILL_FORMED
    ),
    Bad(inventory.PutItemRequest(request_id="a b", item={"sku": SKU}), "request_id", ID_LIMIT),
    Bad(ledger.ListEntriesRequest(reservation_id="a b"), "reservation_id", ID_LIMIT),
]
QUANTITIES = [
    Bad(request(lines=lines((SKU, bad))), "lines[0].quantity", UNITS_LIMIT)
    for request in (reserve, commit, release)
    for bad in (0, -1, UNITS_MAX + 1, 2**53 + 1, -(2**63))
]
LINES = [
    Bad(reserve(lines=[]), "lines", "must number 1 to 100, not 0"),
    Bad(reserve(lines=lines((SKU, 1)) * 101), "lines", "must number 1 to 100, not 101"),
    Bad(commit(lines=lines((SKU, 1)) * 101), "lines", "must number 0 to 100, not 101"),
    Bad(release(lines=lines((SKU, 1)) * 101), "lines", "must number 0 to 100, not 101"),
    Bad(reserve(lines=lines((SKU, UNITS_MAX), (SKU, 1))), "lines.quantity", f"at most {UNITS_MAX}"),
    Bad(reserve(lines=lines((SKU, 1), (SKU, 0))), "lines[1].quantity", UNITS_LIMIT),
]
BAD_SKUS = ["", "x" * 129, " outer", "outer ", "bell\x07", "unit\x1f", "del\x7f", "new\nline"]
SKUS = [
    *(Bad(reserve(lines=lines((bad, 1))), "lines[0].sku", SKU_LIMIT) for bad in BAD_SKUS),
    *(Bad(commit(lines=lines((bad, 1))), "lines[0].sku", SKU_LIMIT) for bad in BAD_SKUS[:3]),
    *(Bad(release(lines=lines((bad, 1))), "lines[0].sku", SKU_LIMIT) for bad in BAD_SKUS[:3]),
    *(Bad(stock.GetStockRequest(skus=[SKU, bad]), "skus[1]", SKU_LIMIT) for bad in BAD_SKUS),
    *(Bad(put_item(sku=bad), "item.sku", SKU_LIMIT) for bad in BAD_SKUS),
    *(Bad(adjust(sku=bad), "sku", SKU_LIMIT) for bad in BAD_SKUS),
    *(Bad(set_stock(sku=bad), "sku", SKU_LIMIT) for bad in BAD_SKUS),
    *(Bad(inventory.GetItemRequest(sku=bad), "sku", SKU_LIMIT) for bad in BAD_SKUS),
    Bad(stock.GetStockRequest(), "skus", "must number 1 to 1000, not 0"),
    Bad(stock.GetStockRequest(skus=[SKU] * 1001), "skus", "must number 1 to 1000, not 1001"),
    Bad(ledger.ListEntriesRequest(sku="bell\x07"), "sku", SKU_LIMIT),
    Bad(reserve(lines=lines((SKU, 1, "x" * 65))), "lines[0].location", "at most 64"),
    Bad(reserve(lines=lines((SKU, 1, "dock\x1e"))), "lines[0].location", "at most 64"),
    Bad(adjust(location="x" * 65), "location", "at most 64"),
    Bad(set_stock(location="dock\x1e"), "location", "at most 64"),
]
TTLS = [
    *(
        Bad(request(ttl=bad), "ttl", "from 0.1 s")
        for request in (reserve, extend)
        for bad in (
            seconds(0),
            seconds(-1),
            seconds(0.099),
            seconds(86_400.001),
            Duration(seconds=2**62),
        )
    ),
    Bad(extend(ttl=None), "ttl", "from 0.1 s"),
    # Within what any item may allow, beyond what these do.
    Bad(reserve(ttl=seconds(TTL_MAX_S + 0.001)), "ttl", "at most 900.000 s"),
    Bad(extend(ttl=seconds(TTL_MAX_S + 0.001)), "ttl", "at most 900.000 s"),
    Bad(put_item(hold_ttl_default=seconds(0)), "item.hold_ttl_default", "from 0.1 s"),
    Bad(put_item(hold_ttl_max=seconds(86_401)), "item.hold_ttl_max", "to 86400 s"),
    Bad(put_item(hold_lifetime_max=seconds(604_801)), "item.hold_lifetime_max", "to 604800 s"),
    Bad(put_item(hold_ttl_default=seconds(901)), "item.hold_ttl_max", "hold_ttl_default <="),
]
TEXTS = [
    *(
        Bad(request(context=types.Context(**{name: LONG})), f"context.{name}", "1024 bytes")
        for request in (reserve, commit, release, extend)
        for name in ("agent_id", "session_id", "channel", "external_ref", "rationale")
    ),
    Bad(reserve(context=types.Context(rationale="ß" * 513)), "context.rationale", "1024 bytes"),
    Bad(reserve(context=types.Context(agent_id="a\x1db")), "context.agent_id", "no control"),
    Bad(
        stock.GetStockRequest(skus=[SKU], context=types.Context(agent_id=LONG)),
        "context.agent_id",
        "1024 bytes",
    ),
    Bad(commit(order_ref="x" * 129), "order_ref", "128 bytes"),
    Bad(commit(order_ref="a\x1db"), "order_ref", "no control"),
    Bad(adjust(reason="x" * 257), "reason", "256 bytes"),
    Bad(set_stock(reference="x" * 257), "reference", "256 bytes"),
    Bad(put_item(title="bell\x07"), "item.title", "no control"),
]
NUMBERS = [
    *(
        Bad(request(if_sequence=bad), "if_sequence", f"from 0 to {2**53}")
        for request in (reserve, commit)
        for bad in (-1, 2**53 + 1)
    ),
    *(Bad(adjust(delta=bad), "delta", str(UNITS_MAX)) for bad in (0, UNITS_MAX + 1, -(2**63))),
    Bad(adjust(delta=UNITS_MAX), "delta", "must leave on_hand within"),
    *(Bad(set_stock(on_hand=bad), "on_hand", f"from 0 to {UNITS_MAX}") for bad in (-1, 2**53 + 1)),
    Bad(set_stock(expected_on_hand=2**53), "expected_on_hand", str(UNITS_MAX)),
    Bad(set_stock(as_of_sequence=-1), "as_of_sequence", "from 0"),
    Bad(set_stock(as_of_sequence=2**52), "as_of_sequence", "the end of the ledger"),
    Bad(set_stock(as_of_sequence=1, expected_on_hand=1), "as_of_sequence", "expected_on_hand"),
    *(
        Bad(put_item(**{name: bad}), f"item.{name}", "from 0 to")
        for name in ("safety_stock", "oversell_limit", "plenty_at", "low_at", "scarce_at")
        for bad in (-1, UNITS_MAX + 1)
    ),
    Bad(put_item(oversell_share=101), "item.oversell_share", "from 0 to 100"),
    Bad(put_item(low_at=2), "item.low_at", "scarce_at <= low_at <= plenty_at"),
    Bad(put_item(late_commit=99), "item.late_commit", "REJECT, RETRY or REVIEW"),
    Bad(
        put_item(channels=[inventory.ChannelQuota(channel="web", quota=-1)]),
        "item.channels[0].quota",
        "from 0 to",
    ),
    Bad(
        put_item(channels=[inventory.ChannelQuota(quota=1)]),
        "item.channels[0].channel",
        "empty",
    ),
]
PAGES = [
    Bad(request(page_size=-1), "page_size", "must not be negative")
    for request in (inventory.ListItemsRequest, ledger.ListEntriesRequest)
] + [
    Bad(request(page_token=bad), "page_token", "a token from an earlier page")
    for request in (inventory.ListItemsRequest, ledger.ListEntriesRequest)
    for bad in ("garbage!", "Z", "_____w", "käse", "x" * 3000)
]


CASES = [*IDS, *QUANTITIES, *LINES, *SKUS, *TTLS, *TEXTS, *NUMBERS, *PAGES]


@pytest.mark.parametrize(
    "bad",
    CASES,
    ids=[f"{n}-{RPCS[type(case.request)]}-{case.field}" for n, case in enumerate(CASES)],
)
async def test_a_bad_argument_is_named_with_its_limit_and_changes_nothing(
    client: Serving, bad: Bad
) -> None:
    before = await digest(client.url)
    refused = await failure(rpc_of(client, bad.request)(bad.request))
    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")
    assert bad.limit in refused.violations[bad.field]
    assert bad.field in refused.message
    assert await digest(client.url) == before


async def test_every_bad_field_is_named_at_once(client: Serving) -> None:
    request = reserve(reservation_id="a b", lines=lines(("", 0)), ttl=seconds(0), if_sequence=-1)
    refused = await failure(client.stock.Reserve(request))
    assert set(refused.violations) == {
        "reservation_id",
        "lines[0].sku",
        "lines[0].quantity",
        "ttl",
        "if_sequence",
    }


async def test_of_many_bad_fields_the_first_twenty_are_named(client: Serving) -> None:
    request = reserve(lines=[types.Line(sku=SKU, quantity=0)] * 100)
    refused = await failure(client.stock.Reserve(request))
    assert list(refused.violations) == [f"lines[{index}].quantity" for index in range(20)]


async def test_an_unknown_sku_among_known_ones_is_named_and_nothing_is_held(
    client: Serving,
) -> None:
    before = await digest(client.url)
    request = reserve(lines=lines((SKU, 1), ("nobody's", 1), (OTHER_SKU, 1), ("nor this", 1)))
    refused = await failure(client.stock.Reserve(request))
    assert refused.kind == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_SKU", "holdfast")
    assert refused.metadata == {"skus": "nobody's, nor this"}
    for call in (
        client.inventory.GetItem(inventory.GetItemRequest(sku="nobody's")),
        client.inventory.AdjustStock(adjust(sku="nobody's")),
        client.inventory.SetStock(set_stock(sku="nobody's")),
        client.inventory.SetStock(set_stock(sku="nobody's", as_of_sequence=1)),
    ):
        refused = await failure(call)
        assert refused.kind == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_SKU", "holdfast")
        assert refused.metadata == {"skus": "nobody's"}
    assert await digest(client.url) == before


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
    client: Serving, request_: Message
) -> None:
    before = await digest(client.url)
    refused = await failure(rpc_of(client, request_)(request_))
    assert refused.kind == (grpc.StatusCode.PERMISSION_DENIED, "NOT_OWNER", "holdfast")
    assert refused.metadata == {"id": THEIRS}
    assert await digest(client.url) == before


async def test_another_principal_cannot_learn_an_id_by_reserving_it_again(client: Serving) -> None:
    refused = await failure(client.stock.Reserve(reserve(reservation_id=THEIRS)))
    assert refused.kind == (grpc.StatusCode.ALREADY_EXISTS, "RESERVATION_ID_REUSED", "holdfast")


@pytest.mark.parametrize("principal", ["", "a b", "x" * 129, "semi;colon"])
async def test_an_ill_formed_principal_is_refused(client: Serving, principal: str) -> None:
    call = client.stock.Reserve(reserve(), metadata=metadata(principal))
    refused = await failure(call)
    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")
    assert "1 to 128" in refused.violations["metadata.holdfast-principal"]


async def test_a_message_over_one_mebibyte_is_refused(client: Serving) -> None:
    before = await digest(client.url)
    request = reserve(context=types.Context(rationale="x" * (1 << 20)))
    refused = await failure(client.stock.Reserve(request))
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(1 << 20) in refused.message
    assert await digest(client.url) == before


@pytest.mark.parametrize(
    "method",
    [
        "StockService/Reserve",
        "StockService/GetStock",
        "InventoryService/PutItem",
        "LedgerService/ListEntries",
    ],
)
async def test_bytes_that_are_no_protobuf_are_refused(client: Serving, method: str) -> None:
    before = await digest(client.url)
    for noise in (b"\xff\xff\xff\xff", b"\x0a\x7f"):
        refused = await failure(client.channel.unary_unary(f"/holdfast.v1.{method}")(noise))
        assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")
    assert await digest(client.url) == before


async def test_text_that_is_no_utf_8_is_refused(client: Serving) -> None:
    call = client.channel.unary_unary("/holdfast.v1.StockService/Reserve")
    refused = await failure(call(b"\x0a\x02\xc3\x28"))
    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")


async def answers(
    client: Serving, *frames: list[stock.PipelineOperation]
) -> list[stock.PipelineResult]:
    requests = [stock.PipelineRequest(operations=frame) for frame in frames]
    call = client.stock.Pipeline(iter(requests))
    return [result async for response in call for result in response.results]


async def test_a_bad_operation_of_a_frame_fails_alone(client: Serving) -> None:
    operation = stock.PipelineOperation
    sku = await client.put(10)
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
    results = {result.tag: result for result in await answers(client, frame)}
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
    client: Serving,
) -> None:
    operation = stock.PipelineOperation(get_stock=stock.GetStockRequest(skus=[SKU]))
    full = stock.PipelineRequest(operations=[operation] * 256)
    assert len(await answers(client, list(full.operations))) == 256
    over = stock.PipelineRequest(operations=[operation] * 257)
    call = client.stock.Pipeline(iter([full, over]))
    first = await call.read()
    assert isinstance(first, stock.PipelineResponse)
    assert len(first.results) == 256
    refused = await failure(call.read())
    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")
    assert "at most 256 a frame, not 257" in refused.violations["operations"]


async def test_an_empty_frame_is_answered_by_an_empty_one(client: Serving) -> None:
    assert await answers(client, [], []) == []


async def test_bad_rows_of_an_import_fail_alone(client: Serving) -> None:
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
    answer = await client.inventory.Import(iter([request]))
    assert (answer.imported, answer.failed) == (2, 4)
    assert [(bad.row, bad.sku, bad.reason, bad.field) for bad in answer.errors] == [
        (2, "bell\x07", "INVALID_ARGUMENT", "item.sku"),
        (3, f"{prefix}c", "INVALID_ARGUMENT", "stock[0].on_hand"),
        (4, f"{prefix}d", "INVALID_ARGUMENT", "item.safety_stock"),
        (6, f"{prefix}f", "INVALID_ARGUMENT", "item.low_at"),
    ]
    page = await client.inventory.ListItems(inventory.ListItemsRequest(sku_prefix=prefix))
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
    client: Serving, request_: inventory.ImportRequest, field: str
) -> None:
    refused = await failure(client.inventory.Import(iter([request_])))
    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")
    assert field in refused.violations
