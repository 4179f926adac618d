"""What Holdfast promises, as plain Python: the oracle with which every host of the kernel agrees.

Written from the rules of the contract for clarity: no bytes, no batching, whatever is asked is
worked out anew.  One row of classes: books <- reservations <- endings, books <- counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast_server.model import (
    AdjustStock,
    BatchResult,
    Code,
    Commit,
    Extend,
    GetReservation,
    GetStock,
    Operation,
    Outcome,
    PutItem,
    Release,
    Reserve,
    SetStock,
    State,
)
from tests.contract.oracle.counts import Counts
from tests.contract.oracle.endings import Endings
from tests.contract.oracle.reservations import WANTED

SWEEP_BASE = 64
SOONEST_MAX = 64
ENDED_BATCHES_MAX = 2


class Oracle(Endings, Counts):
    """Decides batches as the kernel must."""

    def __init__(self, *, hold_budget: int = 0, retention_ms: int = 900_000) -> None:
        super().__init__()
        self.hold_budget = hold_budget
        self.retention_ms = retention_ms
        self.endings: list[tuple[int, list[str]]] = []

    def execute(self, operations: Sequence[Operation], *, now_ms: int) -> BatchResult:
        self.now_ms = max(self.now_ms, now_ms)
        self.ended_now, self.placed_now = [], []
        live = self._live()
        self._sweep([id_ for ms, id_ in live if ms <= self.now_ms], len(operations))
        outcomes = [self._decide_one(operation) for operation in operations]
        soon = [id_ for ms, id_ in live if ms > self.now_ms][:SOONEST_MAX]
        outcomes = self._with_next_expiry(outcomes, [*soon, *self.placed_now])
        self._purge()
        return BatchResult(list(outcomes), self.now_ms, self.sequence, self.more_due)

    def _live(self) -> list[tuple[int, str]]:
        claims = [claim for claim in self.claims.values() if claim.state is State.HELD]
        return sorted((claim.expires_ms, claim.id) for claim in claims)

    def _sweep(self, due: list[str], operations: int) -> None:
        """End what is due, the longest overdue first, in bounded steps."""
        limit = SWEEP_BASE + operations
        self.more_due = len(due) >= limit
        for reservation_id in due[:limit]:
            self.claim(reservation_id)

    def _decide_one(self, op: Operation) -> Outcome:
        rules: dict[type, Any] = {
            Reserve: self.reserve,
            Commit: self.commit,
            Release: self.release,
            Extend: self.extend,
            GetReservation: self.get_reservation,
            GetStock: self.get_stock,
            PutItem: self.put_item,
            AdjustStock: self.adjust_stock,
            SetStock: self.set_stock,
        }
        outcome: Outcome = rules[type(op)](op)
        return outcome

    def get_reservation(self, op: GetReservation) -> Outcome:
        claim = self.owned(op.reservation_id, op.caller)
        if isinstance(claim, Outcome):
            return claim
        return self.answer(Code.OK, reservation=claim.record())

    def get_stock(self, op: GetStock) -> Outcome:
        levels = tuple(self.items[sku].level() if sku in self.items else None for sku in op.skus)
        return self.answer(Code.OK, levels=levels)

    def _with_next_expiry(self, outcomes: list[Outcome], ids: list[str]) -> list[Outcome]:
        """Say to who was refused when the next unit held of the item may come free."""
        soonest: dict[str, int] = {}
        for claim in map(self.claims.__getitem__, ids):
            for line in claim.lines if claim.state is State.HELD else ():
                if line.quantity:
                    soonest[line.sku] = min(
                        claim.expires_ms, soonest.get(line.sku, claim.expires_ms)
                    )
        return [
            outcome._replace(
                detail=tuple(
                    line._replace(next_expiry_ms=soonest.get(line.sku, 0))
                    if line.next_expiry_ms == WANTED
                    else line
                    for line in outcome.detail
                )
            )
            if outcome.code == Code.OUT_OF_STOCK
            else outcome
            for outcome in outcomes
        ]

    def _purge(self) -> None:
        """Forget what ended longer than retention ago, at most two batches' worth at a time."""
        before_ms = self.now_ms - self.retention_ms
        old = [ending for ending in self.endings[:ENDED_BATCHES_MAX] if ending[0] <= before_ms]
        del self.endings[: len(old)]
        for _ms, ids in old:
            for id_ in ids:
                claim = self.claims.get(id_)
                self.requests.pop(id_.removeprefix("~"), None) if id_[0] == "~" else None
                if claim and claim.state is not State.HELD and claim.ended_ms <= before_ms:
                    del self.claims[id_]
        if self.ended_now:
            self.endings.append((self.now_ms, self.ended_now))
