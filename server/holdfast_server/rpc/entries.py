"""Ledger entries as messages."""

from __future__ import annotations

from holdfast.v1 import ledger_pb2 as pb
from holdfast_server.model import LedgerEntry
from holdfast_server.rpc import items, messages


def entry_message(value: LedgerEntry, cell: int) -> pb.LedgerEntry:
    """Return a ledger entry as a message."""
    message = pb.LedgerEntry(
        sequence=value.sequence,
        epoch=value.epoch,
        cell=cell,
        time=messages.timestamp(value.time_ms),
        kind=value.kind.value,  # type: ignore[arg-type]  # the same numbers, tested
        id=value.id,
        principal=value.principal,
        movements=[
            pb.Movement(
                sku=move.sku,
                location=move.location,
                on_hand=move.on_hand,
                held=move.held,
                committed=move.committed,
                backordered=move.backordered,
            )
            for move in value.movements
        ],
        order_ref=value.order_ref,
        reason=value.reason,
        reference=value.reference,
    )
    if value.reservation is not None:
        messages.put_reservation(message.reservation, value.reservation)
    if value.item is not None:
        message.item.CopyFrom(items.item_message(value.item))
    if any(value.context):
        message.context.CopyFrom(messages.context(value.context))
    return message
