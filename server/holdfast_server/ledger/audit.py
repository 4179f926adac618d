"""What was asked and answered without an entry in the ledger, as bytes that are kept for good.

A record holds the request and the answer as the messages of the contract, byte for byte as they
were parsed and sent; so whoever reads it years later sees what the agent saw, not what a later
version would have said.  Its bytes are the leaf that the archive stores and the log proves.

| kind | asked | answer |
|---|---|---|
| QUERY | GetStockRequest | GetStockResponse |
| WATCH | WatchRequest | first whole WatchResponse, without its levels; `levels` is their number |
| WATCH_END | empty | WatchResponse of kind END: the last sequence told, and why |
| REFUSAL | request of `call` | response of `call`, with its refusal |
| ERROR | request of `call` | google.rpc.Status: what the store said of a reservation |
| CONFIG | empty | JSON: the settings with secrets masked, and versions |
| GAP | empty | JSON: how many records were dropped before this one, by kind |

Argument errors and refusals to work (OVERLOADED, DRAINING, a store out of reach) are not recorded:
nothing was decided.  A replayed answer is that of an entry in the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from holdfast.v1 import stock_pb2 as pb
from holdfast_server.model import Context

FORMAT = 1
# A leaf has at most 65,535 bytes (ledger/leaf.py); the other fields have less than the rest.
PART_BYTES_MAX = 60_000


class AuditKind(IntEnum):
    """What a record is of."""

    QUERY = 1
    WATCH = 2
    WATCH_END = 3
    REFUSAL = 4
    ERROR = 5
    CONFIG = 6
    GAP = 7


class AuditRecord(NamedTuple):
    """One record, its fields in the order they are packed after the format.

    `id` is unique, and sorts by time: the query_id of a QUERY, and the same in all parts and in the
    WATCH_END of a WATCH.  `subject` is the reservation that it is about, if it is.  The answer was
    as of `epoch` and `sequence`; `time_ms` is the store's, that of the server for CONFIG and GAP.
    `call` is the RPC.  `asked` and `answer` that are too long for a leaf are cut over `parts`
    records, numbered from 0; see `joined`.
    """

    kind: int
    id: str
    part: int
    parts: int
    cell: int
    epoch: int
    sequence: int
    time_ms: int
    principal: str
    session: str
    subject: str
    call: str
    levels: int
    asked: bytes
    answer: bytes

    @property
    def key(self) -> str:
        """Return what it is found by: its reservation, or its own id."""
        return self.subject or self.id


def leaves_of_record(record: AuditRecord) -> list[bytes]:
    """Return the leaves of a record: one, or as many as its size takes."""
    asked, answer = record.asked, record.answer
    whole = len(asked) + len(answer)
    if whole <= PART_BYTES_MAX:
        return [_packed(record)]
    parts = -(-whole // PART_BYTES_MAX)
    leaves = []
    for part in range(parts):
        low = part * PART_BYTES_MAX
        high = low + PART_BYTES_MAX
        past = len(asked)
        cut = record._replace(
            part=part,
            parts=parts,
            asked=asked[low:high],
            answer=answer[max(low - past, 0) : max(high - past, 0)],
        )
        leaves.append(_packed(cut))
    return leaves


def _packed(record: AuditRecord) -> bytes:
    packed: bytes = msgpack.packb((FORMAT, *record), use_bin_type=True)
    return packed


def read_record(leaf: bytes) -> AuditRecord:
    """Return the record of a leaf.  Raises ValueError for what is none."""
    fields = msgpack.unpackb(leaf)
    if not isinstance(fields, list) or len(fields) != len(AuditRecord._fields) + 1:
        raise ValueError("not an audit record")
    if fields[0] != FORMAT:
        raise ValueError(f"an audit record of format {fields[0]}, known is {FORMAT}")
    return AuditRecord._make(fields[1:])


def joined(parts: Sequence[AuditRecord]) -> AuditRecord:
    """Return the record that some parts, in order, are the whole of.  Raises ValueError."""
    first = parts[0]
    found = [(part.id, part.kind, part.part, part.parts) for part in parts]
    if found != [(first.id, first.kind, index, first.parts) for index in range(first.parts)]:
        raise ValueError(f"not all parts of record {first.id}")
    asked = b"".join(part.asked for part in parts)
    answer = b"".join(part.answer for part in parts)
    return first._replace(part=0, parts=1, asked=asked, answer=answer)


_MESSAGES: dict[str, tuple[type[Message], type[Message]]] = {
    "GetStock": (pb.GetStockRequest, pb.GetStockResponse),
    "Watch": (pb.WatchRequest, pb.WatchResponse),
    "Reserve": (pb.ReserveRequest, pb.ReserveResponse),
    "Commit": (pb.CommitRequest, pb.CommitResponse),
    "Release": (pb.ReleaseRequest, pb.ReleaseResponse),
    "Extend": (pb.ExtendRequest, pb.ExtendResponse),
}


def asked_of(record: AuditRecord) -> Any:
    """Return the request of a whole record, as its message."""
    return _MESSAGES[record.call][0].FromString(record.asked)


def answer_of(record: AuditRecord) -> Any:
    """Return the answer of a whole record, as its message: a Status for an ERROR."""
    kind = Status if record.kind == AuditKind.ERROR else _MESSAGES[record.call][1]
    return kind.FromString(record.answer)


def context_of(record: AuditRecord) -> Context:
    """Return what the caller of a whole record said about itself."""
    said = getattr(asked_of(record), "context", None) if record.call else None
    return Context(*(getattr(said, name) for name in Context._fields)) if said else Context()
