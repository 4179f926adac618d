"""What is old enough goes: whole sealed ranges, first from the archive and then from the logs.

Their hashes stay, so everything that is left is still proved; what the archive's tables fold to
stays too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)

LOOK_S = 3_600.0
DAY_MS = 86_400_000


class Archive(Protocol):
    """What keeps leaves and the fold."""

    async def purge(self, stream: str, before_ms: int, *, now_ms: int) -> int:
        """Drop whole ranges of what is older than a time; return the last that is gone, or 0."""
        ...


class Logs(Protocol):
    """What keeps the same leaves as files."""

    async def purge(self, stream: str, through: int) -> None:
        """Drop leaves up to one, whole bundles only."""
        ...


class Retention:
    """Drops what has been kept for its time.  Run it where the archive is written."""

    def __init__(self, archive: Archive, logs: Logs, days: Mapping[str, int]) -> None:
        self._archive, self._logs, self._days = archive, logs, days

    async def run(self) -> None:
        """Look once an hour, until cancelled."""
        while True:
            for stream in self._days:
                try:
                    await self.apply(stream, time.time_ns() // 1_000_000)
                except Exception as fault:  # whatever it is, it waits for the next hour
                    log.error("retention not applied", stream=stream, fault=str(fault))
            await asyncio.sleep(LOOK_S)

    async def apply(self, stream: str, now_ms: int) -> int:
        """Drop what a stream has kept for its time; return the last leaf that is gone, or 0."""
        before_ms = now_ms - self._days[stream] * DAY_MS
        through = await self._archive.purge(stream, before_ms, now_ms=now_ms)
        if through:
            await self._logs.purge(stream, through)
            log.info("retention applied", stream=stream, through=through)
        return through
