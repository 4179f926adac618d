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
    Commit,
    Extend,
    GetReservation,
    GetStock,
    Operation,
    Outcome,
    Release,
)

ROOM_S = 1.0
RETRY_AFTER_MS = 500


class Trail(Protocol):
    """Who takes notes."""

    @property
    def is_full(self) -> bool:
        """Tell whether a note of whatever is no query would be dropped."""
        ...

    @property
    def is_full_of_queries(self) -> bool:
        """Tell whether a note of a query would be dropped."""
        ...

    async def room(self, timeout_s: float, *, for_query: bool) -> bool:
        """Wait until a note would be taken, at most for so long; tell whether it would."""
        ...

    def note(self, operation: Operation, outcome: Outcome) -> str:
        """Note an operation that made no entry; return the id of the note, empty if dropped."""
        ...


# They end work and free stock: they are decided even if their refusal would go unnoted.
_FINISHING = (Commit, Release, Extend, GetReservation)


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
        """Return what the store decided, Overloaded for what would go unnoted and may not."""
        if not (self.trail.is_full_of_queries and await self._lacks_room(operations)):
            return self._noted(operations, await self.store.execute(operations))
        taken = [operation for operation in operations if not self._must_wait(operation)]
        result = self._noted(taken, await self.store.execute(taken))
        decided = iter(result.outcomes)
        error = Overloaded("the audit trail is behind", retry_after_ms=RETRY_AFTER_MS)
        outcomes = [
            error if self._must_wait(operation) else next(decided) for operation in operations
        ]
        return result._replace(outcomes=outcomes)

    async def _lacks_room(self, operations: Sequence[Operation]) -> bool:
        """Wait for the room that a batch needs; tell whether there is none."""
        waiting = [operation for operation in operations if self._must_wait(operation)]
        if not waiting:
            return False
        for_query = any(type(operation) is GetStock for operation in waiting)
        return not await self.trail.room(ROOM_S, for_query=for_query)

    def _must_wait(self, operation: Operation) -> bool:
        if type(operation) is GetStock:
            return self.blocks_queries
        return self.blocks_mutations and not isinstance(operation, _FINISHING)

    def _noted(self, operations: Sequence[Operation], result: BatchResult) -> BatchResult:
        """Note what made no entry, and tell a query its name."""
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
