"""What is decided and not archived yet, and what is still taken when that is too much.

The store keeps what the archive does not have, so an archive that is away fills the store's memory.
Commit, Release and Extend are always taken: they end what was begun, and there are no more of them
than holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from holdfast_server.errors import Overloaded
from holdfast_server.model import AdjustStock, Operation, PutItem, Reserve, SetStock

log = structlog.get_logger(__name__)

TICK_S = 0.05
FALL_AT = 0.9  # of the bound, or a ledger at its bound would flap
RETRY_AFTER_MS = 2_000
_GROWING = (Reserve, PutItem, AdjustStock, SetStock)


@dataclass(eq=False)
class Backlog:
    """How many ledger entries are not archived, and whether they are more than is allowed.

    `taken` counts the operations that were taken all the same, where `is_blocking` is false.
    """

    entries_max: int = 0
    is_blocking: bool = True
    entries: int = 0
    is_exceeded: bool = False
    taken: int = 0

    def observe(self, entries: int) -> None:
        """Take how many entries are not archived at a moment."""
        self.entries = entries
        if self.is_exceeded:
            self.is_exceeded = entries > FALL_AT * self.entries_max
        else:
            self.is_exceeded = entries > self.entries_max

    def refusal(self, operation: Operation) -> Overloaded | None:
        """Return the error of an operation that must wait for the archive, None if it is taken."""
        if not self.is_exceeded or not isinstance(operation, _GROWING):
            return None
        if not self.is_blocking:
            self.taken += 1
            return None
        return Overloaded(
            f"{self.entries} ledger entries are not archived, the limit is {self.entries_max}",
            retry_after_ms=RETRY_AFTER_MS,
        )


async def watch_backlog(backlog: Backlog, entries: Callable[[], int]) -> None:
    """Feed a backlog with how many entries are not archived, for ever; say when it changes."""
    while True:
        before = backlog.is_exceeded
        backlog.observe(entries())
        if backlog.is_exceeded != before:
            write = log.error if backlog.is_exceeded else log.info
            write(
                "archive backlog",
                is_exceeded=backlog.is_exceeded,
                entries=backlog.entries,
                entries_max=backlog.entries_max,
                is_blocking=backlog.is_blocking,
                taken=backlog.taken,
            )
        await asyncio.sleep(TICK_S)
