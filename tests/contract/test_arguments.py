"""Bad arguments over the wire: refused with field and limit named, and nothing changed."""

from __future__ import annotations

from typing import NamedTuple

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import ledger_pb2 as ledger
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from tests.contract.requests import (
    ID_LIMIT,
    OTHER_SKU,
    RPCS,
    SKU,
    TTL_MAX_S,
    adjust,
    commit,
    extend,
    put_item,
    release,
    reserve,
    rpc_of,
    set_stock,
)
from tests.serving import Serving, digest, failure, lines, seconds

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNITS_MAX = 1_000_000_000


class Bad(NamedTuple):
    """A request, the field that is bad in it, and the limit that the answer must name."""

    request: Message
    field: str
    limit: str


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
    Bad(
        inventory.PutItemRequest(request_id="a b", item=inventory.Item(sku=SKU)),
        "request_id",
        ID_LIMIT,
    ),
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
    *(
        Bad(put_item(sellout_horizon=seconds(bad)), "item.sellout_horizon", "from 0 s to 3600 s")
        for bad in (-1, 3601)
    ),
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
    shop: Serving, bad: Bad
) -> None:
    before = await digest(shop.url)
    refused = await failure(rpc_of(shop, bad.request)(bad.request))
    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")
    assert bad.limit in refused.violations[bad.field]
    assert bad.field in refused.message
    assert await digest(shop.url) == before


async def test_every_bad_field_is_named_at_once(shop: Serving) -> None:
    request = reserve(reservation_id="a b", lines=lines(("", 0)), ttl=seconds(0), if_sequence=-1)
    refused = await failure(shop.stock.Reserve(request))
    assert set(refused.violations) == {
        "reservation_id",
        "lines[0].sku",
        "lines[0].quantity",
        "ttl",
        "if_sequence",
    }


async def test_of_many_bad_fields_the_first_twenty_are_named(shop: Serving) -> None:
    request = reserve(lines=[types.Line(sku=SKU, quantity=0)] * 100)
    refused = await failure(shop.stock.Reserve(request))
    assert list(refused.violations) == [f"lines[{index}].quantity" for index in range(20)]


async def test_an_unknown_sku_among_known_ones_is_named_and_nothing_is_held(
    shop: Serving,
) -> None:
    before = await digest(shop.url)
    request = reserve(lines=lines((SKU, 1), ("nobody's", 1), (OTHER_SKU, 1), ("nor this", 1)))
    refused = await failure(shop.stock.Reserve(request))
    assert refused.kind == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_SKU", "holdfast")
    assert refused.metadata == {"skus": "nobody's, nor this"}
    for call in (
        shop.inventory.GetItem(inventory.GetItemRequest(sku="nobody's")),
        shop.inventory.AdjustStock(adjust(sku="nobody's")),
        shop.inventory.SetStock(set_stock(sku="nobody's")),
        shop.inventory.SetStock(set_stock(sku="nobody's", as_of_sequence=1)),
    ):
        refused = await failure(call)
        assert refused.kind == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_SKU", "holdfast")
        assert refused.metadata == {"skus": "nobody's"}
    assert await digest(shop.url) == before
