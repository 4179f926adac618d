"""Requests to operations: every argument checked, every bad field named with its limit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration

from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from holdfast_server.errors import InvalidArgument, Violation
from holdfast_server.model import (
    LINES_MAX,
    SKUS_MAX,
    UNITS_MAX,
    Caller,
    Commit,
    Context,
    Extend,
    GetReservation,
    GetStock,
    Line,
    Release,
    Reserve,
)

ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
SKU_LEN_MAX, LOCATION_LEN_MAX, ORDER_REF_BYTES_MAX, TEXT_BYTES_MAX = 128, 64, 128, 1024
TTL_MIN_MS, TTL_MAX_MS = 100, 86_400_000
SEQUENCE_MAX = 2**53

_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


_Contextual = (
    stock.ReserveRequest
    | stock.CommitRequest
    | stock.ReleaseRequest
    | stock.ExtendRequest
    | stock.GetStockRequest
)

SKU_LIMIT = f"must be 1 to {SKU_LEN_MAX} printable characters without outer spaces"


def is_sku(value: str) -> bool:
    """Tell whether a text can be a SKU."""
    return 0 < len(value) <= SKU_LEN_MAX and value.isprintable() and value == value.strip()


class Arguments:
    """Collects what is wrong with one request; `done` raises it all at once."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def bad(self, field: str, description: str) -> None:
        """Note one bad field."""
        self.violations.append(Violation(field, description))

    def done(self) -> None:
        """Raise InvalidArgument when anything was bad."""
        if self.violations:
            raise InvalidArgument.of(*self.violations[:20])

    def identifier(self, field: str, value: str) -> None:
        """Check a reservation or request id."""
        if not ID.fullmatch(value):
            self.bad(field, "must be 1 to 64 of [A-Za-z0-9._:-]")

    def new_identifier(self, field: str, value: str) -> str:
        """Check an id that the server makes when it is empty."""
        if not value:
            return uuid4().hex
        self.identifier(field, value)
        return value

    def sku(self, field: str, value: str) -> None:
        """Check a SKU."""
        if not is_sku(value):
            self.bad(field, SKU_LIMIT)

    def location(self, field: str, value: str) -> None:
        """Check a location, which may be empty."""
        if len(value) > LOCATION_LEN_MAX or not value.isprintable() or value != value.strip():
            self.bad(field, "must be at most 64 printable characters without outer spaces")

    def text(self, field: str, value: str, *, bytes_max: int = TEXT_BYTES_MAX) -> None:
        """Check a free text: its size in UTF-8, and no control characters but tab and newline."""
        if len(value) * 4 > bytes_max and len(value.encode()) > bytes_max:
            self.bad(field, f"must be at most {bytes_max} bytes of UTF-8")
        if not value.isprintable() and _UNSAFE.search(value):
            self.bad(field, "must hold no control characters but tab and newline")

    def units(self, field: str, value: int, *, low: int = 1) -> None:
        """Check a number of units."""
        if not low <= value <= UNITS_MAX:
            self.bad(field, f"must be from {low} to {UNITS_MAX}")

    def sequence(self, field: str, value: int) -> None:
        """Check a sequence; 0 means none."""
        if not 0 <= value <= SEQUENCE_MAX:
            self.bad(field, f"must be from 0 to {SEQUENCE_MAX}")

    def duration_ms(
        self, field: str, value: Duration, *, low: int = TTL_MIN_MS, high: int = TTL_MAX_MS
    ) -> int:
        """Check an interval and return it in ms, rounded down."""
        ms = value.seconds * 1000 + value.nanos // 1_000_000
        if not low <= ms <= high:
            self.bad(field, f"must be from {low / 1000:g} s to {high / 1000:g} s")
        return ms

    def context(self, request: _Contextual) -> Context:
        """Check and return what a caller says about itself."""
        if not request.HasField("context"):
            return _NO_CONTEXT
        value = request.context
        context = Context(
            value.agent_id,
            value.session_id,
            value.channel,
            value.external_ref,
            value.rationale,
        )
        for name, text in zip(Context._fields, context, strict=True):
            if text:
                self.text(f"context.{name}", text)
        return context

    def lines(self, lines: Iterable[types.Line], *, low: int = 0) -> tuple[Line, ...]:
        """Check lines and return them summed by SKU and location, in order."""
        given = [Line(line.sku, line.quantity, line.location) for line in lines]
        if not low <= len(given) <= LINES_MAX:
            self.bad("lines", f"must number {low} to {LINES_MAX}, not {len(given)}")
        for index, (sku, quantity, location) in enumerate(given):
            if not is_sku(sku):
                self.bad(f"lines[{index}].sku", SKU_LIMIT)
            if location:
                self.location(f"lines[{index}].location", location)
            if not 1 <= quantity <= UNITS_MAX:
                self.units(f"lines[{index}].quantity", quantity)
        return tuple(given) if len(given) == 1 else self._summed(given)

    def _summed(self, lines: Iterable[Line]) -> tuple[Line, ...]:
        totals: dict[tuple[str, str], int] = {}
        for sku, quantity, location in lines:
            totals[sku, location] = totals.get((sku, location), 0) + quantity
        for (sku, _location), total in totals.items():
            if total > UNITS_MAX:
                self.bad("lines.quantity", f"must sum to at most {UNITS_MAX} for {sku}")
        return tuple(Line(sku, total, where) for (sku, where), total in sorted(totals.items()))


_NO_CONTEXT = Context()


def reserve(request: stock.ReserveRequest, caller: Caller) -> Reserve:
    """Return the operation of a Reserve.  Raises InvalidArgument."""
    check = Arguments()
    reservation_id = check.new_identifier("reservation_id", request.reservation_id)
    lines = check.lines(request.lines, low=1)
    ttl_ms = check.duration_ms("ttl", request.ttl) if request.HasField("ttl") else 0
    check.sequence("if_sequence", request.if_sequence)
    if request.replaces:
        check.identifier("replaces", request.replaces)
    context = check.context(request)
    check.done()
    return Reserve(
        reservation_id,
        caller,
        lines,
        ttl_ms,
        context,
        request.allow_partial,
        request.allow_backorder,
        request.if_sequence,
        request.replaces,
    )


def commit(request: stock.CommitRequest, caller: Caller) -> Commit:
    """Return the operation of a Commit.  Raises InvalidArgument."""
    check = Arguments()
    check.identifier("reservation_id", request.reservation_id)
    lines = check.lines(request.lines)
    check.text("order_ref", request.order_ref, bytes_max=ORDER_REF_BYTES_MAX)
    check.sequence("if_sequence", request.if_sequence)
    context = check.context(request)
    check.done()
    return Commit(
        request.reservation_id, caller, lines, request.order_ref, context, request.if_sequence
    )


def release(request: stock.ReleaseRequest, caller: Caller) -> Release:
    """Return the operation of a Release.  Raises InvalidArgument."""
    check = Arguments()
    check.identifier("reservation_id", request.reservation_id)
    lines = check.lines(request.lines)
    context = check.context(request)
    check.done()
    return Release(request.reservation_id, caller, lines, context)


def extend(request: stock.ExtendRequest, caller: Caller) -> Extend:
    """Return the operation of an Extend.  Raises InvalidArgument."""
    check = Arguments()
    check.identifier("reservation_id", request.reservation_id)
    ttl_ms = check.duration_ms("ttl", request.ttl)
    context = check.context(request)
    check.done()
    return Extend(request.reservation_id, caller, ttl_ms, context)


def get_reservation(request: stock.GetReservationRequest, caller: Caller) -> GetReservation:
    """Return the operation of a GetReservation.  Raises InvalidArgument."""
    check = Arguments()
    check.identifier("reservation_id", request.reservation_id)
    check.done()
    return GetReservation(request.reservation_id, caller)


def get_stock(request: stock.GetStockRequest, caller: Caller) -> GetStock:
    """Return the operation of a GetStock, each SKU once.  Raises InvalidArgument."""
    check = Arguments()
    if not 1 <= len(request.skus) <= SKUS_MAX:
        check.bad("skus", f"must number 1 to {SKUS_MAX}, not {len(request.skus)}")
    for index, sku in enumerate(request.skus):
        check.sku(f"skus[{index}]", sku)
    context = check.context(request)
    check.done()
    return GetStock(tuple(dict.fromkeys(request.skus)), caller, context)
