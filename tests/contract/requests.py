"""Requests that are good but for what a test makes bad in them."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import ledger_pb2 as ledger
from holdfast.v1 import stock_pb2 as stock
from tests.serving import Client, lines, seconds

# What the server of these tests has: two items, and a hold of each of two principals.
SKU, OTHER_SKU, MINE, THEIRS = "known", "known too", "mine", "theirs"
TTL_MAX_S = 900  # the default hold_ttl_max

ID_LIMIT = "1 to 64 of [A-Za-z0-9._:-]"


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


def rpc_of(client: Client, request: Message) -> Any:
    service, _, method = RPCS[type(request)].partition(".")
    return getattr(getattr(client, service), method)
