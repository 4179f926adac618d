"""InventoryService from threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Unpack

import grpc

from holdfast import inventory_messages as messages
from holdfast.inventory import (
    Counted,
    CountOptions,
    Imported,
    ItemDetail,
    ItemEntry,
    ItemPut,
    Policy,
    Row,
    SetStockOptions,
)
from holdfast.sync.calls import Calls
from holdfast.v1 import inventory_pb2 as pb


class Inventory(Calls):
    """Items, their policies and their counts: for operators and connectors."""

    def put_item(
        self,
        sku: str,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
        **policy: Unpack[Policy],
    ) -> ItemPut:
        """Create an item, or change the parts of its policy that are given.

        Raises InvalidArgument, ReservationIdReused.
        """
        request = messages.put_item_request(sku, policy, request_id)
        answer = self._call(self.stubs.inventory.PutItem, request, timeout)
        return messages.item_put_of(answer)

    def get_item(self, sku: str, *, timeout: float | None = None) -> ItemDetail:
        """Read an item: its policy, its level, and its stock by location.  Raises UnknownSku."""
        request = pb.GetItemRequest(sku=sku)
        answer = self._call(self.stubs.inventory.GetItem, request, timeout)
        return messages.item_detail_of(answer)

    def list_items(
        self, sku_prefix: str = "", *, page_size: int = 0, timeout: float | None = None
    ) -> Iterator[ItemEntry]:
        """Yield every item in order of SKU, fetching page by page; `timeout` is a page's."""
        request = pb.ListItemsRequest(sku_prefix=sku_prefix, page_size=page_size)
        while True:
            page = self._call(self.stubs.inventory.ListItems, request, timeout)
            for entry in page.entries:
                yield messages.item_entry_of(entry)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def adjust_stock(
        self,
        sku: str,
        delta: int,
        *,
        timeout: float | None = None,
        **options: Unpack[CountOptions],
    ) -> Counted:
        """Add units to a location, or take them away.

        Taking more than is left is accepted, and recorded as a deficit.

        Raises UnknownSku, InvalidArgument, ReservationIdReused.
        """
        request = messages.adjust_stock_request(sku, delta, **options)
        answer = self._call(self.stubs.inventory.AdjustStock, request, timeout)
        return messages.counted_of(answer)

    def set_stock(
        self,
        sku: str,
        on_hand: int,
        *,
        timeout: float | None = None,
        **options: Unpack[SetStockOptions],
    ) -> Counted:
        """State how many units a location has.

        A count below what was claimed is accepted, and recorded as a deficit.

        Raises UnknownSku, StaleQuantity, NotOwner (another system of record), InvalidArgument,
        ReservationIdReused.
        """
        request = messages.set_stock_request(sku, on_hand, **options)
        answer = self._call(self.stubs.inventory.SetStock, request, timeout)
        return messages.counted_of(answer)

    def import_items(
        self,
        rows: Iterable[Row],
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Imported:
        """Create items and set their stock in bulk; a bad row fails alone, and is reported.

        Rows are sent a few hundred at a time; `timeout` is that of one such part, by default ten
        times that of other calls.  An import that failed midway may be made again as a whole with
        the same `request_id`, which the error has as `idempotency_key`.
        """
        importing = messages.Importing(request_id)
        for row in rows:
            for message in importing.add(row):
                importing.note(self._import(message, timeout))
        for message in importing.rest():
            importing.note(self._import(message, timeout))
        return importing.so_far

    def _import(self, message: pb.ImportRequest, timeout: float | None) -> pb.ImportResponse:
        # One message a stream, so that gRPC repeats it by itself.
        call = self.stubs.inventory.Import
        seconds = 10 * self._connection.timeout if timeout is None else timeout
        try:
            return call(iter([message]), timeout=seconds, metadata=self.metadata)
        except grpc.RpcError as error:
            raise self._error_of(error, message.request_id) from error
