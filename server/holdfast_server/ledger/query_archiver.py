"""From the store's stream of audit records into the archive, in order, by whoever leads.

The place in the stream stands in the same transaction as the records; so each is archived once.
Stream ids go by the store's clock.  A store that lost the end of its stream, and whose clock went
back, gives ids again that are archived; then whatever stands in the stream is looked for in the
archive by its bytes, since no two records are alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from holdfast_server.errors import Fenced, StoreFault
from holdfast_server.ledger.archive import QUERIES, Archive, Archived

log = structlog.get_logger(__name__)

GROUPS_MAX = 32
LOOK_S = 0.25
RETRY_S = 1.0
POLL_S = 0.05


class Waiting(Protocol):
    """Some records that are to be archived, and the id of the last stream entry they are of."""

    @property
    def mark(self) -> str:
        """Return the id."""
        ...

    @property
    def records(self) -> Sequence[bytes]:
        """Return the records."""
        ...


class Source(Protocol):
    """Where records wait to be archived."""

    async def queries(self, after: str, *, count: int) -> Waiting | None:
        """Return what came after a stream id, None for nothing."""
        ...

    async def last_mark(self) -> str:
        """Return the id of the newest entry that was ever added, as far as the store knows."""
        ...

    async def drop_queries(self, token: int, through: str) -> None:
        """Drop what is archived.  Raises Fenced when another one leads."""
        ...


class QueryArchiver:
    """Moves audit records into the archive.  `lead` is work of the leader."""

    def __init__(self, source: Source, archive: Archive) -> None:
        self._source, self._archive = source, archive
        self._fault = ""
        self._lost = ""  # the archived place that the stream no longer has
        self._doubted = ""  # up to here the stream may hold what is archived

    async def lead(self, token: int) -> None:
        """Archive until cancelled.  Raises Fenced when another one leads."""
        at: Archived | None = None
        while True:
            try:
                at = at or await self._archive.archived(QUERIES)
                while (now := await self._step(token, at)) != at:
                    at = now
                    self._fault = ""
                await asyncio.sleep(LOOK_S)
            except Fenced:
                raise
            except StoreFault as fault:
                if str(fault) != self._fault:
                    log.error("cannot archive the audit trail", fault=str(fault))
                self._fault, at = str(fault), None
                await asyncio.sleep(RETRY_S)

    async def _step(self, token: int, at: Archived) -> Archived:
        """Archive what waits, up to a bound; return how far the records are archived then."""
        after, last = at.mark, await self._source.last_mark()
        if _place(last) < _place(after):
            if self._lost != after:
                log.warning("the stream of audit records went back", archived=after, last=last)
            self._lost, self._doubted, after = after, last, ""
        waiting = await self._source.queries(after, count=GROUPS_MAX)
        if waiting is None:
            return at
        records = waiting.records
        if _place(after) < _place(self._doubted):
            records = [each for each in records if not await self._archive.has_query(each)]
        now = await self._archive.apply_queries(records, waiting.mark, at)
        await self._source.drop_queries(token, waiting.mark)
        return now


async def until_archived(source: Source, archive: Archive, timeout_s: float) -> bool:
    """Wait until all that is in the stream by now is archived, at most for so long; tell if it is.

    Raises StoreUnavailable.
    """
    wanted = _place(await source.last_mark())
    try:
        async with asyncio.timeout(timeout_s):
            while _place((await archive.archived(QUERIES)).mark) < wanted:  # noqa: ASYNC110  # another process may archive
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return False
    return True


def _place(mark: str) -> tuple[int, int]:
    """Return a stream id as what ids are compared by; no id is before all."""
    ms, _, number = mark.partition("-")
    return int(ms or 0), int(number or 0)
