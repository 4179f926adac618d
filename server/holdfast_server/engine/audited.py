"""Answers that leave no entry in the ledger, noted in the audit trail on their way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast_server.engine.batcher import Store
from holdfast_server.errors import Overloaded
from holdfast_server.model import (
    BatchResult,
    Code,
    GetReservation,
    GetStock,
    Operation,
    Outcome,
)

ROOM_S = 1.0
RETRY_AFTER_MS = 500


class Trail(Protocol):
    """Who takes notes."""

    @property
    def is_full(self) -> bool:
        """Tell whether a note would be dropped."""
        ...

    async def room(self, timeout_s: float) -> bool:
        """Wait until a note would be taken, at most for so long; tell whether it would."""
        ...

    def note(self, operation: Operation, outcome: Outcome) -> str:
        """Note an operation that made no entry; return the id of it as a query."""
        ...


@dataclass(frozen=True)
class AuditedStore:
    """Decides as its store does, and notes every query, refusal and impossible operation.

    When the trail is full, what may not go unnoted waits for room, and is then refused as
    Overloaded before it is decided; the rest is answered, and the trail counts what it lacks.
    """

    store: Store
    trail: Trail
    blocks_mutations: bool = True
    blocks_queries: bool = False

    async def execute(self, operations: Sequence[Operation]) -> BatchResult:
        """Return what the store decided.  Raises Overloaded when the trail has no room."""
        if self.trail.is_full and self._must_wait(operations) and not await self.trail.room(ROOM_S):
            words = "the audit trail is behind"
            raise Overloaded(words, retry_after_ms=RETRY_AFTER_MS)
        result = await self.store.execute(operations)
        outcomes = result.outcomes
        for index, operation in enumerate(operations):
            outcome = outcomes[index]
            if not isinstance(outcome, Outcome):
                continue
            if type(operation) is GetStock:
                if outcome.code == Code.OK:
                    name = self.trail.note(operation, outcome)
                    outcomes[index] = outcome._replace(detail=name)
            elif outcome.code > Code.AGAIN and type(operation) is not GetReservation:
                self.trail.note(operation, outcome)
        return result

    def _must_wait(self, operations: Sequence[Operation]) -> bool:
        for operation in operations:
            is_query = isinstance(operation, GetStock)
            if self.blocks_queries if is_query else self.blocks_mutations:
                return True
        return False
