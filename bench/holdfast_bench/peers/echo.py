"""echo: answers that were made beforehand, the ceiling of every other peer.

What is left is what grpc.aio costs: the call, parsing the request, writing the response.  It
decides nothing, knows no stock, and its answers fit no request; so it cannot be asked what it sold.
"""

from __future__ import annotations

from typing import Any

from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import types_pb2 as types

_RESERVATION_ID, _SKU = "0" * 26, "SKU-000000"
_LEVEL = types.StockLevel(sku=_SKU, available=999, on_hand=1000, held=1)
_LEVEL.as_of.FromSeconds(1_700_000_000)


def _reservation(state: Any) -> types.Reservation:
    line = types.ReservationLine(sku=_SKU, quantity=1)
    made = types.Reservation(reservation_id=_RESERVATION_ID, state=state, lines=[line])
    made.created_at.FromSeconds(1_700_000_000)
    made.expires_at.FromSeconds(1_700_000_010)
    return made


class Echo:
    """The four methods, each with the one answer it has."""

    _reserved = pb.ReserveResponse(
        reservation=_reservation(types.RESERVATION_STATE_HELD), levels=[_LEVEL]
    )
    _committed = pb.CommitResponse(
        reservation=_reservation(types.RESERVATION_STATE_COMMITTED), levels=[_LEVEL]
    )
    _released = pb.ReleaseResponse(
        reservation=_reservation(types.RESERVATION_STATE_RELEASED), levels=[_LEVEL]
    )
    _stock = pb.GetStockResponse(levels=[_LEVEL], source=types.SOURCE_STORE)

    async def reserve(self, _request: pb.ReserveRequest, _context: Any) -> pb.ReserveResponse:
        """Answer as if it were held."""
        return self._reserved

    async def commit(self, _request: pb.CommitRequest, _context: Any) -> pb.CommitResponse:
        """Answer as if it were sold."""
        return self._committed

    async def release(self, _request: pb.ReleaseRequest, _context: Any) -> pb.ReleaseResponse:
        """Answer as if it were given back."""
        return self._released

    async def get_stock(self, _request: pb.GetStockRequest, _context: Any) -> pb.GetStockResponse:
        """Answer with the level of some item."""
        return self._stock
