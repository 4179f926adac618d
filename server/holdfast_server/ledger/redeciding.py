"""Decide the past again: the same kernel, the same operations, and what was recorded of them.

An entry is reproduced when the kernel, given the state before its batch and what was asked,
makes the very bytes that the ledger keeps: entries and rows alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from holdfast_server.kernel.lua import LuaError, LuaHost, plain
from holdfast_server.kernel.wire import decode_outcome, encode_batch
from holdfast_server.ledger.leaf import EVENT_SIZE, StoredBatch
from holdfast_server.ledger.origins import Asked, asked_of
from holdfast_server.model import Operation, Outcome


class Redecided(NamedTuple):
    """What a batch made when it was decided again: its events, and the rows it wrote by field."""

    events: list[Any]
    rows: dict[bytes, bytes]


class Difference(NamedTuple):
    """Where a batch that was decided again is not as it was recorded."""

    sequence: int
    message: str


def question_of(operation: Operation) -> Asked:
    """Return one operation as it is asked again."""
    flat = encode_batch([operation])
    return Asked([part.encode() if isinstance(part, str) else part for part in flat], [], [], 0)


class Redecider:
    """The kernel over batches of the past, in order; it keeps the state that they make.

    Not for several threads: the Lua inside decides one batch at a time.
    """

    def __init__(self) -> None:
        self._lua = LuaHost("inprocess/replay")

    def keep(self, rows: Mapping[bytes, bytes], records: Mapping[bytes, bytes]) -> None:
        """Add rows, and records of reservations, to the state."""
        self._lua.call("keep", dict(rows), dict(records))

    def reads(self, question: Asked, records: Mapping[bytes, bytes]) -> list[bytes]:
        """Return the fields of the rows that operations read, given the records they read."""
        now = _now(0, 0, question.budget)
        fields: list[bytes] = plain(
            self._lua.call("reads", now, question.flat, question.due, dict(records))
        )
        return fields

    def follow(self, batch: StoredBatch) -> Difference | None:
        """Decide the next batch again; return where it differs from what was recorded."""
        try:
            question = asked_of(batch)
            what, _found, at = self._lua.call(
                "follow", *_arguments(batch, question), batch.events, batch.rows
            )
        except (LuaError, ValueError, IndexError, KeyError, StopIteration) as error:
            return Difference(batch.first, f"cannot be decided again: {error}")
        if what is None:
            return None
        if what == b"rows":
            return Difference(batch.last, "the rows it left are others")
        sequence = min(batch.first + (at - 1) // EVENT_SIZE, batch.last)
        return Difference(sequence, "the entry is another")

    def decide(self, batch: StoredBatch, through: int | None = None) -> Redecided:
        """Decide a batch again, or its entries up to a sequence.

        Raises LuaError or ValueError for what cannot be decided.
        """
        events, rows = self._lua.call("decide_again", *_arguments(batch, asked_of(batch, through)))
        return Redecided(plain(events), _by_field(plain(rows)))

    def judge(self, operation: Operation, *, time_ms: int, sequence: int, budget: int) -> Outcome:
        """Answer an operation once more, whatever it was; `budget` 0 is none.  Raises LuaError."""
        now = _now(time_ms, sequence, budget)
        (out,) = plain(self._lua.call("judge", now, question_of(operation).flat, []))
        return decode_outcome(operation, out, time_ms)

    def expire(self, ids: Sequence[bytes], *, time_ms: int, sequence: int) -> dict[bytes, bytes]:
        """End holds at a time, and return the rows that this leaves.  Raises LuaError."""
        now = _now(time_ms, sequence, 0)
        _events, rows = self._lua.call("decide_again", now, [], list(ids), [])
        return _by_field(plain(rows))

    def state(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """Return rows by field, and records of reservations that were not sold by id."""
        rows, records = self._lua.call("kept")
        return dict(rows.items()), dict(records.items())


def _by_field(written: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(written[::2], written[1::2], strict=True))


def _now(time_ms: int, sequence: int, budget: int) -> dict[bytes, Any]:
    return {b"now": time_ms, b"sequence": sequence, b"budget": budget, b"more_due": False}


def _arguments(batch: StoredBatch, question: Asked) -> tuple[Any, ...]:
    now = _now(batch.time_ms, batch.first - 1, question.budget)
    return now, question.flat, question.due, question.fresh
