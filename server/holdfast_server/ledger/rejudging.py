"""Answers that made no entry, given once more: the same operation on the state of that moment."""

from __future__ import annotations

from typing import Any

from holdfast_server.kernel.lua import LuaError
from holdfast_server.kernel.records import US_BYTE
from holdfast_server.ledger.audit import AuditRecord
from holdfast_server.ledger.past import Past
from holdfast_server.ledger.redeciding import Redecider, question_of
from holdfast_server.model import (
    Caller,
    Code,
    Commit,
    Extend,
    Line,
    Outcome,
    RefusedLine,
    Release,
    Reserve,
)

Claim = Reserve | Commit | Release | Extend
_CLAIMS: dict[str, type[Claim]] = {
    kind.__name__: kind for kind in (Reserve, Commit, Release, Extend)
}
REFUSALS = range(Code.OUT_OF_STOCK, Code.INVALID)


def answered(record: AuditRecord) -> Outcome:
    """Return the answer that a record keeps."""
    code, detail, _skus, _rows = record.answered
    told = _tuples(detail)
    if code in REFUSALS:
        told = tuple(RefusedLine(*line) for line in told)
    return Outcome(code, record.sequence, record.time_ms, None, tuple(record.levels), told)


async def is_answered_again(past: Past, record: AuditRecord) -> bool:
    """Tell whether an operation gets the same answer again, from the ledger alone.

    The ledger does not say what hold budget was in force: where that refused, what it left is taken
    from the answer.  When units come free next hangs on every other hold, and is not compared.
    """
    name, lines, options = record.asked
    if name not in _CLAIMS:
        return False
    operation = _CLAIMS[name](
        record.id, Caller(record.principal), context=record.context, **_asked(name, lines, options)
    )
    told = answered(record)
    left = told.detail[0].available if told.code == Code.HOLD_BUDGET else None
    try:
        again = await _judged(past, operation, record, left)
    except (LuaError, ValueError):
        return False
    return again.code == told.code and _comparable(again) == _comparable(told)


def _asked(name: str, lines: Any, options: dict[str, Any]) -> dict[str, Any]:
    wanted = tuple(Line(*line) for line in lines)
    return options if name == "Extend" else {**options, "lines": wanted}


async def _judged(
    past: Past, operation: Claim, record: AuditRecord, budget_left: int | None
) -> Outcome:
    ids = (operation.reservation_id, operation.replaces if isinstance(operation, Reserve) else "")
    found = {id_.encode(): await past.record(id_, record.sequence) for id_ in ids if id_}
    records = {id_: kept for id_, kept in found.items() if kept is not None}
    redecider, rows, budget = Redecider(), dict[bytes, bytes](), 0
    fields = redecider.reads(question_of(operation), records)
    if record.sequence:
        rows = await past.rows(fields, record.sequence)
    if budget_left is not None:
        budget = 1
        held = (budget - budget_left).to_bytes(4, "little", signed=True)
        rows[US_BYTE + operation.caller.principal.encode()] = held
    redecider.keep(rows, records)
    return redecider.judge(
        operation, time_ms=record.time_ms, sequence=record.sequence, budget=budget
    )


def _comparable(outcome: Outcome) -> Any:
    if outcome.code in REFUSALS:
        return [line._replace(next_expiry_ms=0) for line in outcome.detail]
    return _tuples(outcome.detail)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
