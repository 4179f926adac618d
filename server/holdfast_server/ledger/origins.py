"""What was asked: the operations behind the entries of a batch, in the kernel's own form.

An entry keeps what its operation said, except what could only have refused it: the caller's rights
(an operator may do anything), `if_sequence` of a Commit, and the hold budget.  Three things are
read from the outcome: the title and owner that a PutItem left, since an empty one may mean "keep";
the units of a Commit or Release of a part, which are its moves; and the count that a SetStock as
of an older sequence worked out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, NamedTuple

from holdfast_server.kernel.records import HOLD, LEVEL, PLACE, REQUEST_HEAD_SIZE
from holdfast_server.ledger.leaf import EVENT_SIZE, StoredBatch
from holdfast_server.model import Kind

US, RS, GS = b"\x1f", b"\x1e", b"\x1d"
BUDGETED = 4
BUDGET_UNBOUND = 2**53
OPERATOR = 1
_LINES_AT, _NOTE_AT, _LINE_SIZE = 2, HOLD.size - 1, 8
_EXPIRES = Struct("<d")
_EXPIRES_AT = 19

Flat = list[Any]


class Asked(NamedTuple):
    """A batch to decide again; `fresh` are the ids that its operations make."""

    flat: Flat
    due: list[bytes]
    fresh: list[bytes]
    budget: int


class Event(NamedTuple):
    """One entry of a batch as the store keeps it."""

    kind: int
    id: bytes
    record: bytes
    moves: bytes | bool
    note: bytes


def events_of(batch: StoredBatch) -> list[Event]:
    """Return the entries of a batch."""
    flat = batch.events
    return [Event(*flat[at : at + EVENT_SIZE]) for at in range(0, len(flat), EVENT_SIZE)]


def note_of(record: bytes) -> bytes:
    """Return the note of a reservation's record: order, successor or fingerprint of a part."""
    end = request_at(record)
    return record[end - record[_NOTE_AT] : end]


def request_at(record: bytes) -> int:
    """Return where the request begins in the record of a reservation."""
    return HOLD.size + record[_LINES_AT] * _LINE_SIZE + record[_NOTE_AT]


def asked_of(batch: StoredBatch, through: int | None = None) -> Asked:
    """Return the operations of a batch, or of its entries up to a sequence.

    A hold that came due during an operation, and not in the sweep before, is ended by a read of it.
    What a replaced hold gives back belongs to the Reserve that follows; where the entries end in
    between, a Release stands in for it, which leaves the same rows.
    """
    events = events_of(batch)
    count = len(events) if through is None else through - batch.first + 1
    due: list[bytes] = []
    flat: Flat = []
    fresh: list[bytes] = []
    known: set[bytes] = set()
    budget = 0
    for at, event in enumerate(events[:count]):
        kind, id_, record = event.kind, event.id, event.record
        if id_ not in known:
            known.add(id_)
            if kind == Kind.RESERVE or kind >= Kind.PUT_ITEM:
                fresh.append(id_)
        if kind == Kind.EXPIRE and not flat:
            due.append(id_)
            continue
        if kind == Kind.SUPERSEDE and (at + 1 < count or event.moves is not False):
            continue
        if kind == Kind.RESERVE and record[1] & BUDGETED:
            budget = BUDGET_UNBOUND
        body = _BODIES[kind](event, batch, at)
        flat.append(_ASKED_AS.get(kind, kind))
        flat.append(len(body) + 2)
        flat += body
    return Asked(flat, due, fresh, budget)


def _reserve(event: Event, _batch: StoredBatch, _at: int) -> Flat:
    request = event.record[request_at(event.record) :]
    principal, channel, lines, options, _said = request.split(GS, 4)
    ttl, flags, if_sequence, replaces = options.split(US)
    wanted: Flat = []
    for line in lines.split(RS)[:-1]:
        sku, quantity, location = line.split(US)
        wanted += (sku, location, int(quantity))
    return [
        event.id,
        principal,
        int(ttl),
        int(flags),
        int(if_sequence),
        replaces,
        channel,
        request,
        len(wanted) // 3,
        *wanted,
    ]


def _actor(note: bytes) -> bytes:
    return note[: note.index(GS)]


def _moved(moves: bytes, column: int, sign: int) -> Flat:
    """Return the lines that moved, counted by one column of the moves."""
    wanted: Flat = []
    for move in moves.split(RS)[:-1]:
        fields = move.split(US)
        units = sign * int(fields[column])
        if units:
            wanted += (fields[0], fields[1], units)
    return [len(wanted) // 3, *wanted]


def _commit(event: Event, _batch: StoredBatch, _at: int) -> Flat:
    head = [event.id, _actor(event.note), OPERATOR, 0, note_of(event.record), event.note]
    return head + ([0] if isinstance(event.moves, bool) else _moved(event.moves, 4, 1))


def _release(event: Event, _batch: StoredBatch, _at: int) -> Flat:
    head = [event.id, _actor(event.note), OPERATOR, note_of(event.record), event.note]
    if not isinstance(event.moves, bool):
        return head + _moved(event.moves, 3, -1)
    return head + (_lines(event.record) if head[3] else [0])


def _lines(record: bytes) -> Flat:
    """Return the lines of a record that have units."""
    lines = record[request_at(record) :].split(GS, 3)[2].split(RS)[:-1]
    wanted: Flat = []
    for index, line in enumerate(lines):
        sku, quantity, location = line.split(US)
        at = HOLD.size + index * _LINE_SIZE
        has_own = record[_LINES_AT] > 0
        units = int.from_bytes(record[at : at + 4], "little") if has_own else int(quantity)
        if units:
            wanted += (sku, location, units)
    return [len(wanted) // 3, *wanted]


def _extend(event: Event, batch: StoredBatch, _at: int) -> Flat:
    (expires,) = _EXPIRES.unpack_from(event.record, _EXPIRES_AT)
    return [event.id, _actor(event.note), OPERATOR, int(expires) - batch.time_ms, event.note]


def _expire(event: Event, _batch: StoredBatch, _at: int) -> Flat:
    return [event.id, b"", OPERATOR]


def _supersede(event: Event, _batch: StoredBatch, _at: int) -> Flat:
    return [event.id, b"", OPERATOR, b"", b"", 0]


def _request_of(event: Event) -> bytes:
    return event.record[REQUEST_HEAD_SIZE:]


def _number(text: bytes) -> int | bool:
    return int(text) if text else False


def _put_item(event: Event, _batch: StoredBatch, _at: int) -> Flat:
    request, row = _request_of(event), event.moves
    assert isinstance(row, bytes)
    _principal, sku, *policy, _title, _owner, channels = request.split(GS)
    title, owner, _quotas = row[LEVEL.size :].split(GS)
    numbers = [_number(text) for text in policy]
    return [event.id, request, b"", sku, *numbers, title, owner, channels]


def _adjust_stock(event: Event, _batch: StoredBatch, _at: int) -> Flat:
    request = _request_of(event)
    _principal, sku, location, delta, _said = request.split(GS, 4)
    return [event.id, request, event.note, sku, location, int(delta)]


def _set_stock(event: Event, batch: StoredBatch, at: int) -> Flat:
    request = _request_of(event)
    principal, sku, location, on_hand, expected, as_of, _said = request.split(GS, 6)
    units = _count_after(batch, sku + US + location, at) if as_of else int(on_hand)
    head = [event.id, request, event.note, principal, OPERATOR]
    return [*head, sku, location, units, _number(expected), 0]


def _count_after(batch: StoredBatch, field: bytes, at: int) -> int:
    """Return the units owned at a place after an entry: by the batch's row, less what followed."""
    place = batch.rows[_index(batch.rows, field) + 1]
    on_hand = int(PLACE.unpack(place)[0])
    for event in events_of(batch)[at + 1 :]:
        if event.kind in (Kind.ADJUST_STOCK, Kind.SET_STOCK) and isinstance(event.moves, bytes):
            sku, location, delta, _rest = event.moves.split(US, 3)
            on_hand -= int(delta) if sku + US + location == field else 0
    return on_hand


def _index(rows: Sequence[bytes], field: bytes) -> int:
    return next(at for at in range(0, len(rows), 2) if rows[at] == field)


_BODIES: dict[int, Callable[[Event, StoredBatch, int], Flat]] = {
    Kind.RESERVE: _reserve,
    Kind.COMMIT: _commit,
    Kind.RELEASE: _release,
    Kind.EXTEND: _extend,
    Kind.EXPIRE: _expire,
    Kind.SUPERSEDE: _supersede,
    Kind.PUT_ITEM: _put_item,
    Kind.ADJUST_STOCK: _adjust_stock,
    Kind.SET_STOCK: _set_stock,
}
_ASKED_AS: dict[int, int] = {
    Kind.EXPIRE: int(Kind.GET_RESERVATION),
    Kind.SUPERSEDE: int(Kind.RELEASE),
}
