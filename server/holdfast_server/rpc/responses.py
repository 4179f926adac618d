"""Outcomes to the responses of StockService, for unary calls and Pipeline alike."""

from __future__ import annotations

from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import types_pb2
from holdfast_server.model import Code, GetStock, Outcome
from holdfast_server.rpc import messages


def reserve_response(outcome: Outcome) -> pb.ReserveResponse:
    """Return the answer to a Reserve: a reservation, or a refusal."""
    response = pb.ReserveResponse(
        sequence=outcome.sequence,
        replayed=outcome.code == Code.REPLAYED,
        levels=messages.levels(outcome),
    )
    if outcome.reservation is not None:
        response.reservation.CopyFrom(messages.reservation(outcome.reservation))
    else:
        response.refusal.CopyFrom(messages.refusal(outcome))
    return response


def commit_response(outcome: Outcome) -> pb.CommitResponse:
    """Return the answer to a Commit: a reservation, or a refusal."""
    response = pb.CommitResponse(
        sequence=outcome.sequence,
        replayed=outcome.code == Code.REPLAYED,
        levels=messages.levels(outcome),
    )
    if outcome.reservation is not None:
        response.reservation.CopyFrom(messages.reservation(outcome.reservation))
    else:
        response.refusal.CopyFrom(messages.refusal(outcome))
    return response


def release_response(outcome: Outcome) -> pb.ReleaseResponse:
    """Return the answer to a Release."""
    assert outcome.reservation is not None
    return pb.ReleaseResponse(
        reservation=messages.reservation(outcome.reservation),
        sequence=outcome.sequence,
        replayed=outcome.code == Code.REPLAYED,
        levels=messages.levels(outcome),
    )


def extend_response(outcome: Outcome) -> pb.ExtendResponse:
    """Return the answer to an Extend."""
    assert outcome.reservation is not None
    return pb.ExtendResponse(
        reservation=messages.reservation(outcome.reservation),
        sequence=outcome.sequence,
        replayed=outcome.code == Code.REPLAYED,
    )


def get_stock_response(operation: GetStock, outcome: Outcome) -> pb.GetStockResponse:
    """Return the answer to a GetStock: levels in the order asked, and what does not exist."""
    response = pb.GetStockResponse(sequence=outcome.sequence, source=types_pb2.SOURCE_STORE)
    for sku, level in zip(operation.skus, outcome.levels, strict=True):
        if level is None:
            response.missing_skus.append(sku)
        else:
            response.levels.append(messages.level(level, outcome.now_ms))
    return response
