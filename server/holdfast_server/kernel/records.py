"""Stored records, as bytes, to values.

The layouts stand in lua/kernel/record.lua; the struct formats here are theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct, error
from typing import Any

from holdfast_server.model import (
    ChannelQuota,
    Context,
    Item,
    ItemRow,
    Kind,
    LedgerBatch,
    LedgerEntry,
    Level,
    LocationStock,
    Movement,
    Reservation,
    Reserve,
    ReservedLine,
    State,
)

LEVEL = Struct("<5idd15i")
PLACE = Struct("<3id")
HOLD = Struct("<cBBddddB")
LINE = Struct("<2i")
REQUEST_HEAD_SIZE = 9
# What reading a record raises where its bytes are not those that were written.
DAMAGE = (ValueError, TypeError, IndexError, KeyError, error)

US, RS, GS = "\x1f", "\x1e", "\x1d"
US_BYTE = US.encode()
STATES = {b"H": State.HELD, b"C": State.COMMITTED, b"R": State.RELEASED, b"X": State.EXPIRED}
LATE, SUPERSEDED = 1, 2
NO_CONTEXT = Context()


def decode_level(sku: str, raw: bytes) -> Level:
    """Return the level in the first 96 bytes of an item row."""
    fields = LEVEL.unpack_from(raw)
    return Level._make((sku, *fields[:5], int(fields[5]), int(fields[6]), *fields[7:]))


def item_rows(fields: Iterable[tuple[bytes, bytes]]) -> list[ItemRow]:
    """Return the items among the fields of the items hash, which has locations and budgets too."""
    return [row for row in fields if US_BYTE not in row[0]]


def decode_batch(body: Sequence[Any]) -> LedgerBatch:
    """Return what one batch did to items, from its unpacked stream entry."""
    _version, epoch, now, first, events, rows = body
    last = int(first) + len(events) // 5 - 1
    changed = item_rows(zip(rows[::2], rows[1::2], strict=True))
    return LedgerBatch(int(epoch), int(first), last, int(now), changed)


def decode_item(sku: str, raw: bytes) -> Item:
    """Return a whole item row."""
    title, owner, channels = raw[LEVEL.size :].decode().split(GS)
    quotas = []
    for entry in channels.split(RS)[:-1]:
        name, quota, used, since = entry.split(US)
        quotas.append(ChannelQuota(name, int(quota), int(used), int(since)))
    return Item(title, owner, tuple(quotas), decode_level(sku, raw))


def decode_place(location: str, raw: bytes) -> LocationStock:
    """Return the row of one location of an item."""
    on_hand, held, committed, revision = PLACE.unpack_from(raw)
    return LocationStock(location, on_hand, held, committed, int(revision))


def _decode_lines(text: str, overrides: Sequence[tuple[int, int]]) -> tuple[ReservedLine, ...]:
    lines = []
    for index, entry in enumerate(text.split(RS)[:-1]):
        sku, quantity, location = entry.split(US)
        if overrides:
            units, beyond = overrides[index]
            lines.append(ReservedLine(sku, units, beyond, location))
        else:
            lines.append(ReservedLine(sku, int(quantity), 0, location))
    return tuple(lines)


def decode_reservation(reservation_id: str, raw: bytes) -> Reservation:
    """Return the record of a reservation."""
    state, flags, count, sequence, created, expires, ended, note_size = HOLD.unpack_from(raw)
    lines_at = HOLD.size + count * LINE.size
    note = raw[lines_at : lines_at + note_size].decode() if note_size else ""
    overrides = list(LINE.iter_unpack(raw[HOLD.size : lines_at])) if count else ()
    principal, channel, lines, _options, agent, session, external_ref, rationale = (
        raw[lines_at + note_size :].decode().split(GS)
    )
    said = (agent, session, channel, external_ref, rationale)
    is_committed, is_superseded = state == b"C", bool(flags & SUPERSEDED)
    return Reservation(
        reservation_id,
        STATES[state],
        _decode_lines(lines, overrides),
        principal,
        Context(*said) if any(said) else NO_CONTEXT,
        int(created),
        int(expires),
        int(ended),
        int(sequence),
        note if is_committed else "",
        note if is_superseded else "",
        bool(flags & LATE),
    )


def decode_reserved(operation: Reserve, raw: bytes) -> Reservation:
    """Return the record that a Reserve has just made: what was asked, if granted whole."""
    _state, _flags, count, sequence, created, expires, _ended, _size = HOLD.unpack_from(raw)
    if count:
        return decode_reservation(operation.reservation_id, raw)
    return Reservation(
        operation.reservation_id,
        State.HELD,
        tuple([ReservedLine(sku, units, 0, where) for sku, units, where in operation.lines]),
        operation.caller.principal,
        operation.context,
        int(created),
        int(expires),
        0,
        int(sequence),
    )


def reservation_lines(reservation: Reservation) -> list[str]:
    """Return the SKU of each line, in order."""
    return [line.sku for line in reservation.lines]


_WHOLE_MOVES = {
    Kind.RESERVE: (1, 0, 1),
    Kind.COMMIT: (-1, 1, 0),
    Kind.RELEASE: (-1, 0, -1),
    Kind.EXPIRE: (-1, 0, -1),
    Kind.SUPERSEDE: (-1, 0, -1),
    Kind.EXTEND: (0, 0, 0),
}


def _movements(kind: Kind, reservation: Reservation) -> tuple[Movement, ...]:
    """Return what moved when every line of the record moved whole."""
    held, committed, beyond = _WHOLE_MOVES[kind]
    if not (held or committed):
        return ()
    return tuple(
        Movement(
            line.sku,
            line.location,
            0,
            held * line.quantity,
            committed * line.quantity,
            beyond * line.backordered,
        )
        for line in reservation.lines
        if line.quantity
    )


def _explicit(moves: bytes) -> tuple[Movement, ...]:
    out = []
    for entry in moves.decode().split(RS)[:-1]:
        sku, location, *deltas = entry.split(US)
        out.append(Movement(sku, location, *(int(delta) for delta in deltas)))
    return tuple(out)


def _moved(moves: bytes) -> tuple[Movement, ...]:
    """Return the explicit moves of a reservation, without the lines that stayed as they were."""
    return tuple(move for move in _explicit(moves) if move.held or move.committed)


def _stock_entry(base: dict[str, Any], request: str, moves: bytes, note: str) -> LedgerEntry:
    principal, sku, *_ = request.split(GS)
    if base["kind"] is Kind.PUT_ITEM:
        return LedgerEntry(**base, principal=principal, movements=(), item=decode_item(sku, moves))
    reason, _, reference = note.partition(GS)
    return LedgerEntry(
        **base,
        principal=principal,
        movements=_explicit(moves),
        reason=reason,
        reference=reference,
    )


def _hold_entry(base: dict[str, Any], reservation: Reservation, note: str) -> LedgerEntry:
    actor, context = reservation.principal, reservation.context
    if note:
        actor, *fields = note.split(GS)
        context = Context(*fields)
    elif base["kind"] is not Kind.RESERVE:
        context = Context()
    return LedgerEntry(
        **base,
        principal=actor,
        reservation=reservation,
        context=context,
        order_ref=reservation.order_ref,
    )


def decode_entries(body: Sequence[Any]) -> list[LedgerEntry]:
    """Return the ledger entries of one batch, in order, from its unpacked stream entry."""
    _version, epoch, now, first, events, _rows = body
    entries = []
    for index in range(len(events) // 5):
        number, key, record, moves, note = events[index * 5 : index * 5 + 5]
        kind, name, text = Kind(number), key.decode().removeprefix("~"), note.decode()
        base: dict[str, Any] = {
            "sequence": int(first) + index,
            "epoch": int(epoch),
            "time_ms": int(now),
            "kind": kind,
            "id": name,
        }
        if kind >= Kind.PUT_ITEM:
            request = record[REQUEST_HEAD_SIZE:].decode()
            entries.append(_stock_entry(base, request, moves, text))
            continue
        reservation = decode_reservation(name, record)
        base["movements"] = _movements(kind, reservation) if moves is False else _moved(moves)
        entries.append(_hold_entry(base, reservation, text))
    return entries
