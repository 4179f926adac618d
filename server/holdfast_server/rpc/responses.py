"""Outcomes to the responses of StockService, filled in where they stand.

A unary call fills a response of its own, Pipeline one inside its frame.
"""

from __future__ import annotations

from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import types_pb2
from holdfast_server.model import Code, GetStock, Outcome
from holdfast_server.rpc import messages


def _put_claim(response: pb.ReserveResponse | pb.CommitResponse, outcome: Outcome) -> None:
    response.sequence = outcome.sequence
    response.replayed = outcome.code == Code.REPLAYED
    if outcome.reservation is not None:
        messages.put_reservation(response.reservation, outcome.reservation)
    else:
        response.refusal.CopyFrom(messages.refusal(outcome))
    messages.put_levels(response.levels, outcome)


def put_reserve(response: pb.ReserveResponse, outcome: Outcome) -> pb.ReserveResponse:
    """Fill in the answer to a Reserve: a reservation, or a refusal."""
    _put_claim(response, outcome)
    return response


def put_commit(response: pb.CommitResponse, outcome: Outcome) -> pb.CommitResponse:
    """Fill in the answer to a Commit: a reservation, or a refusal."""
    _put_claim(response, outcome)
    return response


def put_release(response: pb.ReleaseResponse, outcome: Outcome) -> pb.ReleaseResponse:
    """Fill in the answer to a Release."""
    assert outcome.reservation is not None
    messages.put_reservation(response.reservation, outcome.reservation)
    response.sequence = outcome.sequence
    response.replayed = outcome.code == Code.REPLAYED
    messages.put_levels(response.levels, outcome)
    return response


def put_extend(response: pb.ExtendResponse, outcome: Outcome) -> pb.ExtendResponse:
    """Fill in the answer to an Extend."""
    assert outcome.reservation is not None
    messages.put_reservation(response.reservation, outcome.reservation)
    response.sequence = outcome.sequence
    response.replayed = outcome.code == Code.REPLAYED
    return response


def put_get_stock(
    response: pb.GetStockResponse, operation: GetStock, outcome: Outcome
) -> pb.GetStockResponse:
    """Fill in the answer to a GetStock: levels in the order asked, and what does not exist."""
    response.sequence = outcome.sequence
    response.source = types_pb2.SOURCE_STORE
    if outcome.detail:
        response.query_id = outcome.detail
    for sku, level in zip(operation.skus, outcome.levels, strict=True):
        if level is None:
            response.missing_skus.append(sku)
        else:
            messages.put_level(response.levels.add(), level, outcome.now_ms)
    return response
