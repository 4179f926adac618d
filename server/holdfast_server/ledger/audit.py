"""What was asked and answered without an entry in the ledger: the bytes that are kept of it.

A record is a leaf of the log of queries, as an entry is one of the ledger's.  It has the rows of
the levels that were answered, exact; what an agent was told of pressure and advice follows from
them and the time (`pressure`), so nothing is kept that could disagree with it.

| kind | asked | answered |
|---|---|---|
| QUERY | how many SKUs were asked for in all | SKUs of this part, rows of their levels |
| DECISION | operation, lines, what else was asked | code, detail, SKUs, rows of their levels |
| WATCH | SKUs, how many, the sequence to resume after | sequence first told, levels told by then |
| WATCH_TOLD | nothing | time in ms and sequence of each message, by turns |
| WATCH_END | nothing | last sequence told, why the server ended it (empty: the reader left) |
| CONFIGURATION | settings as text, secrets masked | version of the rules |
| DROPPED | nothing | records that are missing here |

What an answer was as of is `epoch` and `sequence`.  A record that is too long for a leaf is cut:
each part has the number of parts for `asked` and bytes for `answered`; `whole` puts them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack

from holdfast_server.kernel.records import LEVEL, decode_level
from holdfast_server.ledger.leaf import LEAF_BYTES_MAX
from holdfast_server.model import Context, GetStock, Level, Operation, Outcome, Position

FORMAT = 1
WATCHES = "\x1fwatches"  # no session's id: control characters are refused
PART_BYTES = 58_000  # the other fields take up to 6,000 of a leaf
SKUS_A_RECORD = 90  # of a query; a larger one makes several records, each below 65,535 bytes


class AuditKind(IntEnum):
    """What a record is of."""

    QUERY = 1  # a GetStock
    DECISION = 2  # an operation that made no entry: refused, or impossible as it stood
    WATCH = 3  # a watch told its first levels
    WATCH_END = 4  # a watch ended
    CONFIGURATION = 5  # a server began, with settings that bear on decisions
    DROPPED = 6  # records that were dropped because the trail was full
    WATCH_TOLD = 7  # a watch was told further messages


OF_WATCHES = frozenset({AuditKind.WATCH, AuditKind.WATCH_TOLD, AuditKind.WATCH_END})


class AuditRecord(NamedTuple):
    """One record.  What `asked` and `answered` are depends on the kind."""

    kind: AuditKind
    time_ms: int
    id: str
    part: int
    principal: str
    context: Context
    epoch: int
    sequence: int
    asked: Any
    answered: Any

    @property
    def is_part(self) -> bool:
        """Tell whether it was too long for a leaf, and is a part of it."""
        return isinstance(self.answered, bytes)

    @property
    def levels(self) -> list[Level | None]:
        """Return the levels that were answered, in the order asked."""
        if self.kind not in {AuditKind.QUERY, AuditKind.DECISION} or self.is_part:
            return []
        skus, rows = self.answered[-2:]
        return [
            decode_level(sku, row) if row else None for sku, row in zip(skus, rows, strict=True)
        ]

    def pack(self, cell: int) -> bytes:
        """Return the bytes to keep."""
        return bytes(msgpack.packb((FORMAT, cell, *self), use_bin_type=True))

    def leaves(self, cell: int) -> list[bytes]:
        """Return the bytes to keep, cut where they are too long for a leaf."""
        raw = self.pack(cell)
        if len(raw) <= LEAF_BYTES_MAX:
            return [raw]
        body = msgpack.packb((self.asked, self.answered), use_bin_type=True)
        cuts = range(0, len(body), PART_BYTES)
        return [
            self._replace(part=part, asked=len(cuts), answered=body[at : at + PART_BYTES]).pack(
                cell
            )
            for part, at in enumerate(cuts)
        ]


def read_record(raw: bytes) -> AuditRecord:
    """Return the record that some bytes are.  Raises ValueError for what is none."""
    fields = msgpack.unpackb(raw)
    if not isinstance(fields, list) or len(fields) != len(AuditRecord._fields) + 2:
        raise ValueError("not an audit record")
    form, _cell, kind, *others = fields
    if form != FORMAT:
        raise ValueError(f"an audit record of format {form}, this version knows {FORMAT}")
    record = AuditRecord(AuditKind(kind), *others)
    return record._replace(context=Context(*record.context))


def whole(records: Iterable[AuditRecord]) -> list[AuditRecord]:
    """Return records in order with their parts put together; one that lacks a part is left out."""
    found: list[AuditRecord] = []
    parts: list[AuditRecord] = []
    for record in records:
        if not record.is_part:
            found.append(record)
            continue
        if (parts and parts[0].id != record.id) or record.part != len(parts):
            parts = []
        if record.part == len(parts):
            parts.append(record)
        if len(parts) == record.asked:
            body = b"".join(part.answered for part in parts)
            asked, answered = msgpack.unpackb(body)
            found.append(record._replace(part=0, asked=asked, answered=answered))
            parts = []
    return found


def session_key(record: AuditRecord) -> str:
    """Return what a record is found by beside its id: its session, or that it is of a watch.

    A watch belongs to no session, but to all that its principal does.
    """
    return WATCHES if record.kind in OF_WATCHES else record.context.session_id


def records_of(
    operation: Operation, outcome: Outcome, name: str, at: Position
) -> Iterator[AuditRecord]:
    """Yield what to keep of an operation that made no entry; `name` is the id of a query."""
    if isinstance(operation, GetStock):
        yield from _query(operation, outcome, name, at)
    else:
        yield _decision(operation, outcome, at)


def _query(op: GetStock, outcome: Outcome, name: str, at: Position) -> Iterator[AuditRecord]:
    for part, start in enumerate(range(0, len(op.skus), SKUS_A_RECORD)):
        end = start + SKUS_A_RECORD
        yield AuditRecord(
            AuditKind.QUERY,
            outcome.now_ms,
            name,
            part,
            op.caller.principal,
            op.context,
            at.epoch,
            outcome.sequence,
            len(op.skus),
            (op.skus[start:end], _rows(outcome.levels[start:end])),
        )


def _decision(op: Any, outcome: Outcome, at: Position) -> AuditRecord:
    """Keep what was asked, and the code, refused lines and levels of the answer."""
    lines = [tuple(line) for line in getattr(op, "lines", ())]
    asked = (type(op).__name__, lines, _options(op))
    levels = [level for level in outcome.levels if level is not None]
    skus = [level.sku for level in levels]
    answered = (int(outcome.code), _plain(outcome.detail), skus, _rows(levels))
    name = getattr(op, "reservation_id", "") or f"~{getattr(op, 'request_id', '')}"
    context = getattr(op, "context", Context())
    return AuditRecord(
        AuditKind.DECISION,
        outcome.now_ms,
        name,
        0,
        op.caller.principal,
        context,
        at.epoch,
        outcome.sequence or at.sequence,
        asked,
        answered,
    )


_SAID_ELSEWHERE = {"reservation_id", "request_id", "caller", "lines", "context"}


def _options(op: Any) -> dict[str, Any]:
    """Return whatever else an operation asks, without what it leaves at its default."""
    defaults = op._field_defaults
    return {
        name: _plain(value)
        for name, value in op._asdict().items()
        if name not in _SAID_ELSEWHERE and value != defaults.get(name)
    }


def _rows(levels: Sequence[Level | None]) -> list[bytes]:
    return [LEVEL.pack(*level[1:]) if level else b"" for level in levels]


def _plain(value: Any) -> Any:
    """Return a value as msgpack has it: tuples for named tuples, and nothing that is an object."""
    if isinstance(value, tuple):
        return tuple(_plain(part) for part in value)
    return value if isinstance(value, str | int | float | bool | bytes | None) else str(value)
