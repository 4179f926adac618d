"""Answers that wait until what they say is kept for good: `durability = archived`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast_server.engine.batcher import Answer, Batcher
from holdfast_server.engine.load import Delays
from holdfast_server.errors import OutcomeUnknown
from holdfast_server.model import GetReservation, GetStock, Operation, Outcome, Position

RETRY_AFTER_MS = 500
_READS = (GetReservation, GetStock)


class Progress(Protocol):
    """Who knows how far the ledger is archived."""

    async def wait(self, sequence: int, timeout_s: float, *, epoch: int) -> bool:
        """Wait until a sequence of an epoch is archived, at most for so long; tell if it is."""
        ...


@dataclass(eq=False, kw_only=True)
class ArchivedBatcher(Batcher):
    """Decides as a batcher does, and answers when the archive has what is decided by then.

    The wait holds no lane: further batches are decided meanwhile, and one transaction archives them
    together.  What changed nothing waits too, for it may repeat what an earlier operation did; what
    only reads does not.
    """

    progress: Progress
    decided: Callable[[], Position]
    timeout_s: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._waits: dict[object, float] = {}  # since when, the oldest first

    def delays_at(self, now_s: float) -> Delays:
        """Return the delays of the engine, and how long the oldest answer has waited."""
        delays = super().delays_at(now_s)
        if not self._waits:
            return delays
        return delays._replace(archive_ms=1000 * (now_s - next(iter(self._waits.values()))))

    async def execute(self, operation: Operation) -> Outcome:
        """Return what became of an operation.

        Raises as `Batcher.execute`, and OutcomeUnknown when the archive lags too far.
        """
        epoch = self.decided().epoch
        outcome = await super().execute(operation)
        if not isinstance(operation, _READS):
            unknown = await self._unarchived(epoch)
            if unknown:
                raise unknown
        return outcome

    async def execute_many(self, operations: Sequence[Operation]) -> list[Answer]:
        """Return what became of each operation, in order; those that failed give their error."""
        epoch = self.decided().epoch
        answers = await super().execute_many(operations)
        waits = [
            isinstance(answer, Outcome) and not isinstance(operation, _READS)
            for operation, answer in zip(operations, answers, strict=True)
        ]
        unknown = await self._unarchived(epoch) if any(waits) else None
        if unknown is None:
            return answers
        return [
            unknown if is_waiting else answer
            for is_waiting, answer in zip(waits, answers, strict=True)
        ]

    async def _unarchived(self, epoch: int) -> OutcomeUnknown | None:
        """Wait for the archive; return the error of an answer that it does not have in time.

        One that was decided while history began anew may be of either: it is not known.
        """
        (now, sequence), wait = self.decided(), object()
        self._waits[wait] = asyncio.get_running_loop().time()
        try:
            if now == epoch and await self.progress.wait(sequence, self.timeout_s, epoch=epoch):
                return None
        finally:
            del self._waits[wait]
        return OutcomeUnknown(
            f"decided by {sequence}, and not archived within {self.timeout_s:g} s: "
            "send the same id again",
            retry_after_ms=RETRY_AFTER_MS,
        )
