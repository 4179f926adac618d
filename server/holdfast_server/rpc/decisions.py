"""Decisions as messages."""

from __future__ import annotations

from holdfast.v1 import ledger_pb2 as pb
from holdfast_server.errors import error_of
from holdfast_server.ledger.decisions import Decision
from holdfast_server.model import Code
from holdfast_server.rpc import items, messages
from holdfast_server.rpc.entries import entry_message
from holdfast_server.rpc.status import status_of


def decision_message(value: Decision, cell: int) -> pb.Decision:
    """Return a decision as a message."""
    message = pb.Decision(
        seen=[messages.level(level, value.time_ms) for level in value.seen],
        time=messages.timestamp(value.time_ms),
        reproduced=value.is_reproduced,
        items=[items.item_message(item) for item in value.items],
        query_id=value.query_id,
        watch_id=value.watch_id,
    )
    if any(value.context):
        message.context.CopyFrom(messages.context(value.context))
    if value.entry is not None:
        message.entry.CopyFrom(entry_message(value.entry, cell))
    if value.outcome is not None:
        if value.outcome.code < Code.INVALID:
            message.refusal.CopyFrom(messages.refusal(value.outcome))
        else:
            message.error.CopyFrom(status_of(error_of(value.outcome)))
    return message
