"""Decisions as messages: entries of the ledger, and what was answered without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any

from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from holdfast.v1 import ledger_pb2 as pb
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from holdfast_server.errors import error_of
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.audit import (
    AuditKind,
    AuditRecord,
    answer_of,
    asked_of,
    joined,
    read_record,
)
from holdfast_server.ledger.decisions import (
    Claim,
    Decision,
    Moment,
    decisions_of,
    items_at,
    judged,
)
from holdfast_server.ledger.moments import at_sequence
from holdfast_server.ledger.past import Past
from holdfast_server.ledger.reading import QueryRecord
from holdfast_server.model import Caller, Code, Item, Kind, Outcome
from holdfast_server.rpc import arguments, items, messages
from holdfast_server.rpc.entries import entry_message

QUERIES_MAX = 100  # looked through for what an agent had asked before

_OPERATIONS: dict[str, Callable[[Any, Caller], Claim]] = {
    "Reserve": arguments.reserve,
    "Commit": arguments.commit,
    "Release": arguments.release,
    "Extend": arguments.extend,
}


class Decisions:
    """What was decided about one subject, and decided again."""

    def __init__(self, archive: Archive, cell: int) -> None:
        self._archive, self._cell = archive, cell
        self._past = Past(archive)

    async def of_query(self, query_id: str) -> list[pb.Decision]:
        """Return what a query answered; nothing when there is none."""
        records = _whole(await self._archive.queries_of(query_id))
        return [await self._answered(each) for each in records if each.kind == AuditKind.QUERY]

    async def of_reservation(self, reservation_id: str) -> list[pb.Decision]:
        """Return everything about a reservation, in order: what was asked before it, too."""
        records = _whole(await self._archive.queries_of(reservation_id))
        refused = [each for each in records if each.kind in (AuditKind.REFUSAL, AuditKind.ERROR)]
        made = await decisions_of(self._past, reservation_id)
        asked = await self._asked_before(made, refused)
        found = [
            ((each.entry.sequence, 0, each.entry.time_ms), self._made(each)) for each in made
        ] + [
            ((each.sequence, 1, each.time_ms), await self._answered(each))
            for each in (*asked, *refused)
        ]
        return [message for _place, message in sorted(found, key=lambda one: one[0])]

    async def _asked_before(
        self, made: list[Decision], refused: list[AuditRecord]
    ) -> list[AuditRecord]:
        """Return the queries of the same principal and session that named the same SKUs."""
        skus = {line.sku for each in made if (it := each.entry.reservation) for line in it.lines}
        skus |= {line.sku for each in refused for line in asked_of(each).lines}
        sessions = {(each.principal, each.session): each.time_ms for each in refused}
        for each in made:
            entry = each.entry
            if entry.kind is Kind.RESERVE or any(entry.context):
                sessions[entry.principal, entry.context.session_id] = entry.time_ms
        found: list[AuditRecord] = []
        for (principal, session), time_ms in sessions.items():
            records = await self._archive.queries_in(
                principal, session, before_ms=time_ms, limit=QUERIES_MAX
            )
            queries = [each for each in _whole(records) if each.kind == AuditKind.QUERY]
            found += [each for each in queries if skus & set(asked_of(each).skus)]
        return found

    def _made(self, value: Decision) -> pb.Decision:
        entry = value.entry
        message = pb.Decision(
            entry=entry_message(entry, self._cell),
            seen=[messages.level(item.level, entry.time_ms) for item in value.seen],
            time=messages.timestamp(entry.time_ms),
            reproduced=value.is_reproduced,
        )
        if any(entry.context):
            message.context.CopyFrom(messages.context(entry.context))
        return _with_items(message, value.seen)

    async def _answered(self, record: AuditRecord) -> pb.Decision:
        asked, answer = asked_of(record), answer_of(record)
        message = pb.Decision(time=messages.timestamp(record.time_ms))
        if asked.HasField("context"):
            message.context.CopyFrom(asked.context)
        if record.kind == AuditKind.QUERY:
            message.query_id = record.id
            message.seen.extend(answer.levels)
            skus = list(asked.skus)
            message.reproduced = await self._answers_so_again(record, answer)
        else:
            skus = [line.sku for line in getattr(asked, "lines", ())]
            if record.kind == AuditKind.REFUSAL:
                message.refusal.CopyFrom(answer.refusal)
                message.seen.extend(answer.levels)
            else:
                message.error.CopyFrom(answer)
            message.reproduced = await self._refuses_again(record, asked, answer)
        seen = await items_at(self._past, dict.fromkeys(skus), record.sequence)
        return _with_items(message, seen)

    async def _answers_so_again(self, record: AuditRecord, answer: stock.GetStockResponse) -> bool:
        skus = [*(level.sku for level in answer.levels), *answer.missing_skus]
        if not record.sequence:
            return not answer.levels
        found = (await at_sequence(self._archive, skus, record.sequence)).levels
        again = [messages.level(level, record.time_ms) for level in found.values() if level]
        return again == list(answer.levels)

    async def _refuses_again(self, record: AuditRecord, asked: Any, answer: Any) -> bool:
        asked.reservation_id = record.subject
        operation = _OPERATIONS[record.call](asked, Caller(record.principal))
        moment = Moment(record.sequence, record.time_ms)
        outcome = await judged(self._past, operation, moment, _budget_left(record, answer))
        if outcome is None:
            return False
        if record.kind == AuditKind.ERROR:
            return outcome.code >= Code.INVALID and _reason(answer) == error_of(outcome).reason
        return _refusal_of(outcome) == _without_expiry(answer.refusal)


def _whole(records: Iterable[QueryRecord]) -> Iterator[AuditRecord]:
    """Yield whole records, and leave out those of which parts are missing."""
    found = [read_record(record.leaf) for record in records]
    for _key, parts in groupby(found, lambda one: (one.id, one.kind)):
        try:
            yield joined(list(parts))
        except ValueError:
            continue


def _with_items(message: pb.Decision, seen: Iterable[Item]) -> pb.Decision:
    message.items.extend(items.item_message(item) for item in seen)
    return message


def _budget_left(record: AuditRecord, answer: Any) -> int | None:
    if record.kind != AuditKind.REFUSAL:
        return None
    is_budget = answer.refusal.reason == types.REFUSAL_REASON_HOLD_BUDGET
    return int(answer.refusal.lines[0].available) if is_budget else None


def _refusal_of(outcome: Outcome) -> types.Refusal:
    if not Code.OUT_OF_STOCK <= outcome.code < Code.INVALID:
        return types.Refusal()
    return _without_expiry(messages.refusal(outcome))


def _without_expiry(refusal: types.Refusal) -> types.Refusal:
    """Return a refusal without what depends on every other hold: when units come free next."""
    plain = types.Refusal()
    plain.CopyFrom(refusal)
    for line in plain.lines:
        line.ClearField("next_expiry_at")
    return plain


def _reason(status: Status) -> str:
    info = ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return str(info.reason)
    return ""
