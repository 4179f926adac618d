"""Operations to the kernel's flat list, and its answers back to values.

An operation becomes `kind, size, ...` in one flat list a batch: nested arrays cost the script
0.2 us each.  The layout of every operation stands at the top of its Lua file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from holdfast_server.kernel.records import (
    decode_level,
    decode_place,
    decode_reservation,
    decode_reserved,
    reservation_lines,
)
from holdfast_server.model import (
    AdjustStock,
    BatchResult,
    Code,
    Commit,
    Context,
    Extend,
    GetReservation,
    GetStock,
    Kind,
    Level,
    Line,
    Operation,
    Outcome,
    PutItem,
    RefusedLine,
    Release,
    Reserve,
    SetStock,
)

US, RS, GS = "\x1f", "\x1e", "\x1d"

Flat = list[Any]


def _lines_text(lines: Sequence[Line]) -> str:
    return "".join([f"{sku}{US}{quantity}{US}{where}{RS}" for sku, quantity, where in lines])


def _note(actor: str, context: Context) -> str:
    return GS.join((actor, *context))


def _wanted(lines: Sequence[Line]) -> Flat:
    flat: Flat = [len(lines)]
    for sku, quantity, location in lines:
        flat += (sku, location, quantity)
    return flat


def reserve_request(op: Reserve) -> str:
    """Return the request as text: equal texts are equal payloads."""
    agent, session, channel, external_ref, rationale = op.context
    flags = op.allow_partial + 2 * op.allow_backorder
    return (
        f"{op.caller.principal}{GS}{channel}{GS}{_lines_text(op.lines)}{GS}"
        f"{op.ttl_ms}{US}{flags}{US}{op.if_sequence}{US}{op.replaces}{GS}"
        f"{agent}{GS}{session}{GS}{external_ref}{GS}{rationale}"
    )


def _reserve(op: Reserve) -> Flat:
    flags = op.allow_partial + 2 * op.allow_backorder
    return [
        op.reservation_id,
        op.caller.principal,
        op.ttl_ms,
        flags,
        op.if_sequence,
        op.replaces,
        op.context.channel,
        reserve_request(op),
        *_wanted(op.lines),
    ]


def _commit(op: Commit) -> Flat:
    principal, is_operator = op.caller
    note = _note(principal, op.context)
    head = [op.reservation_id, principal, int(is_operator), op.if_sequence, op.order_ref, note]
    return head + _wanted(op.lines)


def _release(op: Release) -> Flat:
    principal, is_operator = op.caller
    fingerprint = blake2b(_lines_text(op.lines).encode(), digest_size=8).hexdigest()
    note = _note(principal, op.context)
    head = [op.reservation_id, principal, int(is_operator), fingerprint, note]
    return head + _wanted(op.lines)


def _extend(op: Extend) -> Flat:
    principal, is_operator = op.caller
    note = _note(principal, op.context)
    return [op.reservation_id, principal, int(is_operator), op.ttl_ms, note]


def _get_reservation(op: GetReservation) -> Flat:
    return [op.reservation_id, op.caller.principal, int(op.caller.is_operator)]


def _get_stock(op: GetStock) -> Flat:
    return list(op.skus)


def _request(*values: object) -> str:
    return GS.join("" if value is None else str(value) for value in values)


def _put_item(op: PutItem) -> Flat:
    channels = "".join(
        f"{name}{US}{'-' if quota is None else quota}{RS}" for name, quota in op.channels
    )
    request = _request(op.caller.principal, op.sku, *op.policy, channels)
    policy = [False if value is None else value for value in op.policy]
    return [f"~{op.request_id}", request, "", op.sku, *policy, channels]


def _adjust_stock(op: AdjustStock) -> Flat:
    request = _request(op.caller.principal, op.sku, op.location, op.delta, op.reason, op.reference)
    note = f"{op.reason}{GS}{op.reference}"
    return [f"~{op.request_id}", request, note, op.sku, op.location, op.delta]


def _set_stock(op: SetStock) -> Flat:
    principal, is_operator = op.caller
    # The request is what the caller said; moved and if_sequence differ from one try to the next.
    said = (op.sku, op.location, op.on_hand, op.expected, op.as_of_sequence)
    return [
        f"~{op.request_id}",
        _request(principal, *said, op.reason, op.reference),
        f"{op.reason}{GS}{op.reference}",
        principal,
        int(is_operator),
        op.sku,
        op.location,
        op.on_hand + op.moved,
        False if op.expected is None else op.expected,
        op.if_sequence,
    ]


_ENCODERS: dict[type, tuple[Kind, Callable[[Any], Flat]]] = {
    Reserve: (Kind.RESERVE, _reserve),
    Commit: (Kind.COMMIT, _commit),
    Release: (Kind.RELEASE, _release),
    Extend: (Kind.EXTEND, _extend),
    GetReservation: (Kind.GET_RESERVATION, _get_reservation),
    GetStock: (Kind.GET_STOCK, _get_stock),
    PutItem: (Kind.PUT_ITEM, _put_item),
    AdjustStock: (Kind.ADJUST_STOCK, _adjust_stock),
    SetStock: (Kind.SET_STOCK, _set_stock),
}


def encode_batch(operations: Sequence[Operation]) -> Flat:
    """Return the operations as the kernel's one flat list."""
    flat: Flat = []
    for operation in operations:
        kind, encode = _ENCODERS[type(operation)]
        body = encode(operation)
        flat.append(int(kind))
        flat.append(len(body) + 2)
        flat += body
    return flat


def _refused(detail: Sequence[Any]) -> tuple[RefusedLine, ...]:
    return tuple(
        RefusedLine(
            detail[i].decode(),
            detail[i + 1].decode(),
            int(detail[i + 2]),
            int(detail[i + 3]),
            int(detail[i + 4]),
        )
        for i in range(0, len(detail), 5)
    )


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | tuple):
        return tuple(_text(part) for part in value)
    return value


def _levels(skus: Sequence[str], raws: Sequence[Any]) -> tuple[Level | None, ...]:
    return tuple(
        [decode_level(sku, raw) if raw else None for sku, raw in zip(skus, raws, strict=False)]
    )


_RESERVATION_ENDED = frozenset(
    {
        Code.RESERVATION_EXPIRED,
        Code.RESERVATION_COMMITTED,
        Code.RESERVATION_RELEASED,
        Code.RESERVATION_SUPERSEDED,
    }
)
_COUNTS = (AdjustStock, SetStock)
_HOLDS = (Reserve, Commit, Release, Extend, GetReservation)


def decode_outcome(operation: Operation, out: Sequence[Any], now_ms: int) -> Outcome:
    """Return the kernel's answer to one operation as a value."""
    code, sequence, body = int(out[0]), int(out[1]), out[2]
    if code <= Code.REPLAYED:
        if code == Code.OK and isinstance(operation, Reserve):
            reservation = decode_reserved(operation, body)
            return Outcome(
                code,
                sequence,
                now_ms,
                reservation,
                _levels(reservation_lines(reservation), out[3:]),
            )
        return Outcome(code, sequence, now_ms, *_success(operation, body, out[3:]))
    if code < Code.INVALID:
        if code == Code.AGAIN:
            return Outcome(code, sequence, now_ms)
        detail = _refused(body)
        return Outcome(
            code, sequence, now_ms, None, _refusal_levels(operation, detail, out), detail
        )
    if code in _RESERVATION_ENDED:
        # Reserve is refused so on account of the reservation that it would replace.
        subject = "replaces" if isinstance(operation, Reserve) else "reservation_id"
        reservation_id = getattr(operation, subject)
        return Outcome(code, sequence, now_ms, decode_reservation(reservation_id, body))
    return Outcome(code, sequence, now_ms, None, (), _text(body))


def _refusal_levels(
    operation: Operation, detail: tuple[RefusedLine, ...], out: Sequence[Any]
) -> tuple[Level | None, ...]:
    """Return a level for each line of a Reserve, and for each refused line of the others."""
    lines = operation.lines if isinstance(operation, Reserve) else detail
    return _levels([line[0] for line in lines], out[3:])


def _success(operation: Operation, body: Any, levels: Sequence[Any]) -> tuple[Any, ...]:
    """Return what an operation that succeeded has of reservation, levels and detail."""
    if isinstance(operation, _HOLDS):
        reservation = decode_reservation(operation.reservation_id, body)
        skus = reservation_lines(reservation) if levels else ()
        return reservation, _levels(skus, levels)
    if isinstance(operation, GetStock):
        return None, _levels(operation.skus, levels)
    place = decode_place(operation.location, body) if isinstance(operation, _COUNTS) else None
    return None, _levels((operation.sku,), levels), place


def decode_batch(operations: Sequence[Operation], answer: Sequence[Any]) -> BatchResult:
    """Return the answer of the script, `[now, sequence, more_due, outs]`, as values."""
    now_ms, sequence, more_due, outs = answer
    now_ms = int(now_ms)
    outcomes: list[Outcome | Exception] = [
        decode_outcome(operation, out, now_ms)
        for operation, out in zip(operations, outs, strict=True)
    ]
    return BatchResult(outcomes, now_ms, int(sequence), bool(more_due))
