"""What LedgerService tells of the past: its values, and messages; shared by both clients."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from holdfast.inventory import Item
from holdfast.inventory_messages import item_of
from holdfast.ledger import ENTRY_KINDS, EntryKind, LedgerEntry, entry_of
from holdfast.model import Context, Levels, RefusedLine, StockLevel
from holdfast.responses import (
    NO_CONTEXT,
    REFUSALS,
    context_of,
    level_of,
    levels_of,
    numbered,
    refused_line_of,
    time_of,
)
from holdfast.status import error_of
from holdfast.v1 import ledger_pb2 as pb
from holdfast.v1 import types_pb2 as types


class StockTerm(StrEnum):
    """A term of a level."""

    UNSPECIFIED = "UNSPECIFIED"
    ON_HAND = "ON_HAND"
    HELD = "HELD"
    COMMITTED = "COMMITTED"
    SAFETY_STOCK = "SAFETY_STOCK"
    BACKORDERED = "BACKORDERED"
    OVERSELL_ALLOWANCE = "OVERSELL_ALLOWANCE"


_TERMS = numbered(StockTerm, pb.StockTerm, "STOCK_TERM")


class TermChange(NamedTuple):
    """What one entry did to a term, in units."""

    sequence: int
    kind: EntryKind
    id: str
    units: int


class TermExplanation(NamedTuple):
    """A term of a level: `earlier_units` and all changes add up to `units`."""

    term: StockTerm
    units: int
    changes: tuple[TermChange, ...]
    earlier_units: int


class StockExplanation(NamedTuple):
    """A level as of a sequence, term by term."""

    level: StockLevel
    terms: tuple[TermExplanation, ...]
    sequence: int


class PastStock(NamedTuple):
    """Levels as of a moment, in the order asked; `sequence` is the last entry before it."""

    levels: Levels
    missing_skus: tuple[str, ...]
    sequence: int


class Refusal(NamedTuple):
    """Why the answer was no, and what could be had instead."""

    reason: str
    lines: tuple[RefusedLine, ...]
    message: str


class AnsweredError(NamedTuple):
    """An error that was answered: its reason, such as RESERVATION_EXPIRED."""

    reason: str
    message: str


class Decision(NamedTuple):
    """One decision as it was, and whether it comes out so again.

    `seen` are the levels just before it and `items` the policy of each; a query has the levels it
    answered, and its `query_id`; what a watch had told has its `watch_id`.
    """

    entry: LedgerEntry | None
    seen: Levels
    refusal: Refusal | None
    context: Context
    time: datetime
    reproduced: bool
    items: tuple[Item, ...]
    query_id: str
    error: AnsweredError | None
    watch_id: str


def replay_stock_request(
    skus: str | Iterable[str], sequence: int | None, time: datetime | None
) -> pb.ReplayStockRequest:
    """Return the request of a ReplayStock.  Raises TypeError unless there is one moment."""
    wanted = [skus] if isinstance(skus, str) else skus
    if sequence is not None and time is None:
        return pb.ReplayStockRequest(skus=wanted, sequence=sequence)
    if sequence is not None or time is None:
        raise TypeError("a moment is a sequence or a time: give one of them")
    if time.tzinfo is None:
        raise TypeError("time must have a time zone")
    moment = Timestamp()
    moment.FromDatetime(time)
    return pb.ReplayStockRequest(skus=wanted, time=moment)


def replay_decision_request(reservation_id: str, query_id: str) -> pb.ReplayDecisionRequest:
    """Return the request of a ReplayDecision.  Raises TypeError unless there is one subject."""
    if bool(reservation_id) == bool(query_id):
        raise TypeError("a decision is of a reservation_id or a query_id: give one of them")
    if query_id:
        return pb.ReplayDecisionRequest(query_id=query_id)
    return pb.ReplayDecisionRequest(reservation_id=reservation_id)


def past_stock_of(message: pb.ReplayStockResponse) -> PastStock:
    """Return the answer to a replay_stock."""
    return PastStock(levels_of(message.levels), tuple(message.missing_skus), message.sequence)


def explanation_of(message: pb.ExplainStockResponse) -> StockExplanation:
    """Return the answer to an explain_stock."""
    return StockExplanation(
        level_of(message.level), tuple(map(_term_of, message.terms)), message.sequence
    )


def _term_of(message: pb.TermExplanation) -> TermExplanation:
    return TermExplanation(
        _TERMS.get(message.term, StockTerm.UNSPECIFIED),
        message.units,
        tuple(
            TermChange(
                change.sequence,
                ENTRY_KINDS.get(change.kind, EntryKind.UNSPECIFIED),
                change.id,
                change.units,
            )
            for change in message.changes
        ),
        message.earlier_units,
    )


def decision_of(message: pb.Decision) -> Decision:
    """Return one decision."""
    return Decision(
        entry_of(message.entry) if message.HasField("entry") else None,
        levels_of(message.seen),
        _refusal_of(message.refusal) if message.HasField("refusal") else None,
        context_of(message.context) if message.HasField("context") else NO_CONTEXT,
        time_of(message.time),
        message.reproduced,
        tuple(map(item_of, message.items)),
        message.query_id,
        _answered_error_of(message.error) if message.HasField("error") else None,
        message.watch_id,
    )


def _answered_error_of(message: Status) -> AnsweredError:
    error = error_of(message)
    return AnsweredError(error.reason, str(error))


def _refusal_of(message: types.Refusal) -> Refusal:
    kind = REFUSALS.get(message.reason)
    lines = tuple(map(refused_line_of, message.lines))
    return Refusal(kind.reason if kind else "", lines, message.message)
