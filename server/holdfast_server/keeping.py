"""The ledger kept for good, put together: archive, election, and what the leader does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast_server.config import ConfigError, ServerConfig
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.archiver import Archiver, Progress, Tail
from holdfast_server.ledger.database import archive_url
from holdfast_server.ledger.faults import ArchiveUnusable
from holdfast_server.ledger.query_archiver import QueryArchiver
from holdfast_server.ledger.trail import History, Trail, TrailLimits
from holdfast_server.locks.leadership import Leadership, Work
from holdfast_server.locks.redlock import LockMisconfigured, Redlock
from holdfast_server.stores.redis.keeper import ARCHIVER, RedisKeeper
from holdfast_server.stores.redis.reader import RedisReader


@dataclass(frozen=True)
class Kept:
    """An archive that is followed: how far it is, and what runs for it."""

    archive: Archive
    archiver: Archiver
    trail: Trail
    leadership: Leadership
    works: Sequence[Coroutine[Any, Any, None]]

    @property
    def progress(self) -> Progress:
        """How far the ledger is archived."""
        return self.archiver.progress


@asynccontextmanager
async def keeping(
    config: ServerConfig, url: str, store: History, reader: RedisReader, tail: Tail
) -> AsyncIterator[Kept | None]:
    """Open the archive of a server, or none; its works are the caller's to run.

    Raises ConfigError for what can never be one, StoreUnavailable for one that is out of reach.
    """
    if config.archive == "off":
        yield None
        return
    async with AsyncExitStack() as stack:
        archive = await stack.enter_async_context(_archive(config))
        keeper = RedisKeeper(url, cell=config.cell, timeout_ms=config.store_timeout_ms)
        stack.push_async_callback(keeper.aclose)
        lock = _lock(config, url)
        stack.push_async_callback(lock.aclose)
        archiver = Archiver(reader, archive, keeper, tail, keep=config.ledger_keep)
        limits = TrailLimits(records_max=config.audit_queue_len_max)
        trail = Trail(keeper, store, cell=config.cell, limits=limits)
        stack.push_async_callback(trail.aclose)
        trail.note_configuration(config.shown())
        leadership = Leadership(ARCHIVER, lock, keeper.claim)
        leading = _together(archiver.lead, QueryArchiver(keeper, archive).lead)
        works = [
            leadership.run(leading),
            keeper.hear(archiver.progress.reach),
            trail.run(),
        ]
        yield Kept(archive, archiver, trail, leadership, works)


def _together(*works: Work) -> Work:
    """Return work that is all of these at once; the error of one ends all, and is raised."""

    async def lead(token: int) -> None:
        tasks = [asyncio.ensure_future(work(token)) for work in works]
        try:
            done, _rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    return lead


@asynccontextmanager
async def _archive(config: ServerConfig) -> AsyncIterator[Archive]:
    data = Path(config.data)
    await asyncio.to_thread(data.mkdir, parents=True, exist_ok=True)
    try:
        async with Archive.open(archive_url(config.archive, data), config.cell) as archive:
            yield archive
    except ArchiveUnusable as fault:
        raise ConfigError(str(fault)) from fault


def _lock(config: ServerConfig, url: str) -> Redlock:
    urls = [each.strip() for each in config.lock_urls.split(",")] if config.lock_urls else [url]
    try:
        return Redlock(urls, f"{{c{config.cell}}}:lock:{ARCHIVER}")
    except (LockMisconfigured, ValueError) as fault:
        raise ConfigError(f"lock_urls: {fault}") from fault
