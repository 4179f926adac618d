"""Ledgers written by hand, for the checks to judge."""

from __future__ import annotations

from typing import Any

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import ledger_pb2 as pb
from holdfast.v1 import types_pb2 as types
from holdfast_server.checks import Verdict

START_MS = 1_700_000_000_000
STATES = {
    "RESERVE": types.RESERVATION_STATE_HELD,
    "EXTEND": types.RESERVATION_STATE_HELD,
    "COMMIT": types.RESERVATION_STATE_COMMITTED,
    "RELEASE": types.RESERVATION_STATE_RELEASED,
    "EXPIRE": types.RESERVATION_STATE_EXPIRED,
}


class Ledger:
    """A ledger written by hand: one call an entry, movements as `sku[@location] field+units`."""

    def __init__(self) -> None:
        self.entries: list[pb.LedgerEntry] = []

    def add(self, kind: str, id: str, *moves: str, at_ms: int = 0, **fields: Any) -> pb.LedgerEntry:
        entry = pb.LedgerEntry(
            sequence=len(self.entries) + 1,
            epoch=7,
            kind=pb.EntryKind.Value(f"ENTRY_KIND_{kind}"),
            id=id,
            movements=[movement(move) for move in moves],
        )
        entry.time.FromMilliseconds(START_MS + at_ms)
        if kind in STATES:
            entry.reservation.reservation_id = id
            entry.reservation.state = fields.get("state", STATES[kind])
            entry.reservation.late = fields.get("late", False)
            for sku, quantity in fields.get("lines", ()):
                entry.reservation.lines.add(sku=sku, quantity=quantity)
        self.entries.append(entry)
        return entry

    def put(self, sku: str, **policy: int) -> pb.LedgerEntry:
        entry = self.add("PUT_ITEM", f"put-{sku}")
        full = {"safety_stock": 0, "oversell_limit": 0, "oversell_share": 0, **policy}
        entry.item.CopyFrom(inventory.Item(sku=sku, **full))
        return entry


def movement(text: str) -> pb.Movement:
    name, *changes = text.split()
    sku, _, location = name.partition("@")
    move = pb.Movement(sku=sku, location=location)
    for change in changes:
        sign = "+" if "+" in change else "-"
        field, _, units = change.partition(sign)
        setattr(move, field, int(sign + units))
    return move


def stocked(units: int, **policy: int) -> Ledger:
    ledger = Ledger()
    ledger.put("mug", **policy)
    ledger.add("ADJUST_STOCK", "in-1", f"mug@main on_hand+{units}")
    return ledger


def broken(verdict: Verdict, *words: str) -> bool:
    """Tell whether a check failed, with one violation that holds all the words."""
    return not verdict.holds and any(
        all(word in violation for word in words) for violation in verdict.violations
    )
