"""Answers that wait until what they say is kept for good: `durability = archived`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast_server.engine.batcher import Store
from holdfast_server.errors import OutcomeUnknown
from holdfast_server.model import BatchResult, GetReservation, GetStock, Operation

RETRY_AFTER_MS = 500
_READS = (GetReservation, GetStock)


class Progress(Protocol):
    """Who knows how far the ledger is archived."""

    async def wait(self, sequence: int, timeout_s: float) -> bool:
        """Wait until a sequence is archived, at most for so long; tell whether it is."""
        ...


@dataclass(frozen=True)
class ArchivedStore:
    """Decides as its store does, and answers a batch when the archive has it.

    A batch that changed nothing waits too, for it may repeat what an earlier one did; one that only
    reads does not.
    """

    store: Store
    progress: Progress
    timeout_s: float

    async def execute(self, operations: Sequence[Operation]) -> BatchResult:
        """Return what the store decided.  Raises OutcomeUnknown when the archive lags too far."""
        result = await self.store.execute(operations)
        if all(isinstance(operation, _READS) for operation in operations):
            return result
        if not await self.progress.wait(result.sequence, self.timeout_s):
            raise OutcomeUnknown(
                f"decided at {result.sequence}, and not archived within {self.timeout_s:g} s: "
                "send the same id again",
                retry_after_ms=RETRY_AFTER_MS,
            )
        return result
