"""InventoryService: items, their policies and their counts, for operators and connectors."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from holdfast.v1 import inventory_pb2 as pb
from holdfast.v1 import inventory_pb2_grpc
from holdfast_server.engine.batcher import Batcher
from holdfast_server.engine.recount import recount
from holdfast_server.errors import UnknownSku, error_of
from holdfast_server.ledger.history import History
from holdfast_server.model import Caller, Code, Item, Level, LocationStock, Operation, Outcome
from holdfast_server.rpc import items, messages, tokens
from holdfast_server.rpc.arguments import Arguments
from holdfast_server.rpc.call import CONNECTORS, READERS, Calls, Context, later, unary
from holdfast_server.rpc.importing import import_rows
from holdfast_server.stores.redis.reader import RedisReader

PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX = 100, 1_000


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def page_size(check: Arguments, value: int) -> int:
    """Check a page size and return it, or the default, at most the maximum."""
    if value < 0:
        check.bad("page_size", "must not be negative")
    return min(value or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def _counted(response: Any, outcome: Outcome) -> Any:
    """Fill the answer of AdjustStock or SetStock."""
    level, place = outcome.levels[0], outcome.detail
    assert isinstance(level, Level)
    assert isinstance(place, LocationStock)
    messages.put_level(response.level, level, outcome.now_ms)
    response.location_stock.CopyFrom(items.location_message(place))
    response.deficit = level.deficit
    response.sequence = outcome.sequence
    response.replayed = outcome.code == Code.REPLAYED
    return response


class InventoryServicer(inventory_pb2_grpc.InventoryServiceServicer):
    """Changes go through the engine like every decision; reads go beside it."""

    def __init__(
        self, calls: Calls, batcher: Batcher, reader: RedisReader, history: History
    ) -> None:
        self.calls = calls
        self._batcher = batcher
        self._reader = reader
        self._history = history

    async def _decide(self, operation: Operation) -> Outcome:
        outcome = await self._batcher.execute(operation)
        if outcome.code >= Code.INVALID:
            raise error_of(outcome)
        return outcome

    async def _item(self, sku: str) -> tuple[Item, list[LocationStock]]:
        found = await self._reader.item(sku)
        if found is None:
            raise UnknownSku(f"no such SKU: {sku}", metadata={"skus": sku})
        return found

    @unary(CONNECTORS)
    async def PutItem(self, request: pb.PutItemRequest, caller: Caller) -> pb.PutItemResponse:
        outcome = await self._decide(items.put_item(request.request_id, request.item, caller))
        item, _places = await self._item(request.item.sku)
        level = outcome.levels[0]
        assert level is not None
        return pb.PutItemResponse(
            item=items.item_message(item),
            level=messages.level(level, outcome.now_ms),
            sequence=outcome.sequence,
            replayed=outcome.code == Code.REPLAYED,
        )

    @unary(READERS)
    async def GetItem(self, request: pb.GetItemRequest, caller: Caller) -> pb.GetItemResponse:
        check = Arguments()
        check.sku("sku", request.sku)
        check.done()
        item, places = await self._item(request.sku)
        return pb.GetItemResponse(
            item=items.item_message(item),
            level=messages.level(item.level, _now_ms()),
            locations=[items.location_message(place) for place in places],
            deficit=item.level.deficit,
        )

    @unary(READERS)
    async def ListItems(self, request: pb.ListItemsRequest, caller: Caller) -> pb.ListItemsResponse:
        check = Arguments()
        size = page_size(check, request.page_size)
        if request.sku_prefix:
            check.sku("sku_prefix", request.sku_prefix)
        after = tokens.read(check, "page_token", request.page_token)
        check.done()
        page = await self._reader.items(after=after, prefix=request.sku_prefix, size=size)
        now_ms = _now_ms()
        return pb.ListItemsResponse(
            entries=[
                pb.ItemEntry(
                    item=items.item_message(item),
                    level=messages.level(item.level, now_ms),
                    deficit=item.level.deficit,
                )
                for _sku, item in page.items
            ],
            next_page_token=tokens.make(page.next_sku),
        )

    @unary(CONNECTORS)
    async def AdjustStock(
        self, request: pb.AdjustStockRequest, caller: Caller
    ) -> pb.AdjustStockResponse:
        outcome = await self._decide(items.adjust_stock(request, caller))
        response: pb.AdjustStockResponse = _counted(pb.AdjustStockResponse(), outcome)
        return response

    @unary(CONNECTORS)
    async def SetStock(self, request: pb.SetStockRequest, caller: Caller) -> pb.SetStockResponse:
        operation = items.set_stock(request, caller)
        if operation.as_of_sequence is None:
            outcome = await self._decide(operation)
        else:
            outcome = await recount(self._batcher, self._history, operation)
            if outcome.code >= Code.INVALID:
                raise error_of(outcome)
        response: pb.SetStockResponse = _counted(pb.SetStockResponse(), outcome)
        return response

    async def Import(
        self, requests: AsyncIterator[pb.ImportRequest], context: Context
    ) -> pb.ImportResponse:
        """Put items and set their stock, row by row; a bad row fails alone."""
        async with self.calls.answering("InventoryServicer.Import", context):
            caller = self.calls.begin(context, CONNECTORS)
            return await import_rows(self._batcher, requests, caller)
        raise AssertionError("answering() always raises")  # pragma: no cover

    @unary(CONNECTORS)
    async def RecordSale(
        self, request: pb.RecordSaleRequest, caller: Caller
    ) -> pb.RecordSaleResponse:
        return later("RecordSale")  # type: ignore[no-any-return]  # it raises

    @unary(CONNECTORS)
    async def Ship(self, request: pb.ShipRequest, caller: Caller) -> pb.ShipResponse:
        return later("Ship")  # type: ignore[no-any-return]  # it raises

    @unary(CONNECTORS)
    async def AssignLocation(
        self, request: pb.AssignLocationRequest, caller: Caller
    ) -> pb.AssignLocationResponse:
        return later("AssignLocation")  # type: ignore[no-any-return]  # it raises

    @unary(READERS)
    async def ListReviews(
        self, request: pb.ListReviewsRequest, caller: Caller
    ) -> pb.ListReviewsResponse:
        return later("ListReviews")  # type: ignore[no-any-return]  # it raises

    @unary(CONNECTORS)
    async def ResolveReview(
        self, request: pb.ResolveReviewRequest, caller: Caller
    ) -> pb.ResolveReviewResponse:
        return later("ResolveReview")  # type: ignore[no-any-return]  # it raises
