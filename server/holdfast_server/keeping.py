"""The ledger kept for good, put together: archive, election, and what the leader does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from holdfast_server.config import ConfigError, ServerConfig
from holdfast_server.errors import StoreFault, StoreUnavailable
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.archiver import PAUSE_S, Archiver, Pace, Progress
from holdfast_server.ledger.database import archive_url
from holdfast_server.ledger.faults import ArchiveUnusable
from holdfast_server.ledger.query_archiver import QueryArchiver, until_archived
from holdfast_server.ledger.recovery import LOOK_S, Recovery, Trouble
from holdfast_server.ledger.retention import Retention
from holdfast_server.ledger.sealer import LEDGER, QUERIES, Sealer, SealerConfig
from holdfast_server.ledger.trail import Trail, TrailLimits
from holdfast_server.locks import Leadership, LockMisconfigured, Redlock, Work
from holdfast_server.stores.redis.keeper import ARCHIVER, RedisKeeper
from holdfast_server.stores.redis.reader import RedisReader
from holdfast_server.stores.redis.rebuilding import RedisRebuilding
from holdfast_server.stores.redis.store import RedisStore

log = structlog.get_logger(__name__)

LOCK_TTL_S = 3.0  # how long nobody archives after the leader was killed


@dataclass(frozen=True)
class Kept:
    """An archive that is followed: how far it is, and what runs for it."""

    archive: Archive
    archiver: Archiver
    keeper: RedisKeeper
    trail: Trail
    sealer: Sealer
    leadership: Leadership
    works: Sequence[Coroutine[Any, Any, None]]

    @property
    def progress(self) -> Progress:
        """How far the ledger is archived."""
        return self.archiver.progress

    async def settle(self, timeout_s: float) -> bool:
        """Wait until what this server has noted is archived, at most for so long; tell if it is.

        Raises StoreUnavailable.
        """
        await self.trail.flush()
        return await until_archived(self.keeper, self.archive, timeout_s)


@asynccontextmanager
async def keeping(
    config: ServerConfig, url: str, store: RedisStore, reader: RedisReader
) -> AsyncIterator[Kept | None]:
    """Open the archive of a server, or none, and its store; the works are the caller's to run.

    A store that is behind the archive is rebuilt first.  An archive that is out of reach is not
    waited for, unless the store is empty: that may be the loss of all that the archive has.

    Raises ConfigError for what can never be an archive, StoreUnavailable.
    """
    if config.archive == "off":
        await store.open()
        yield None
        return
    async with AsyncExitStack() as stack:
        archive = await stack.enter_async_context(_archive(config))
        keeper = RedisKeeper(url, cell=config.cell, timeout_ms=config.store_timeout_ms)
        stack.push_async_callback(keeper.aclose)
        lock = _lock(config, url)
        stack.push_async_callback(lock.aclose)
        # What answers wait for must not pause; what came during a transaction is the next one.
        pause_s = 0.0 if config.durability == "archived" else PAUSE_S
        archiver = Archiver(reader, archive, keeper, Pace(config.ledger_keep, pause_s))
        limits = TrailLimits(config.audit_queue_len_max, config.audit_stream_max)
        leadership = Leadership(ARCHIVER, lock, keeper.claim)
        sealer = Sealer(archive, _sealing(config))
        archiver.tell = partial(sealer.tell, LEDGER)
        days = {LEDGER: config.decision_retention_days, QUERIES: config.query_retention_days}
        retention = Retention(archive, sealer, days)
        leading: list[Work] = [
            archiver.lead,
            QueryArchiver(keeper, archive).lead,
            lambda _token: sealer.run(),
            lambda _token: retention.run(),
        ]
        works: list[Coroutine[Any, Any, None]] = []
        if config.on_rollback == "recover":
            recovery = await stack.enter_async_context(_recovery(config, url, reader, archive))
            while await _trouble(recovery, reader) is not None:
                await leadership.run_once(recovery.mend)
            leading = [_in_turn(recovery.mend, _together(*leading, recovery.until_trouble))]
            works.append(_renew(store, recovery))
        await store.open()
        trail = Trail(keeper, store, cell=config.cell, limits=limits)
        stack.push_async_callback(trail.aclose)
        trail.note_configuration(config.shown())
        works += [
            leadership.run(_together(*leading)),
            keeper.hear(archiver.progress.reach),
            trail.run(),
        ]
        yield Kept(archive, archiver, keeper, trail, sealer, leadership, works)


def log_directory(config: ServerConfig) -> Path:
    """Return where the Merkle log of the ledger is; the others are within."""
    return Path(config.data) / "log"


def _sealing(config: ServerConfig) -> SealerConfig:
    return SealerConfig(
        directory=log_directory(config),
        key_file=Path(config.log_key or Path(config.data) / "log.key"),
        cell=config.cell,
        export=config.checkpoint_export,
        export_every_s=config.checkpoint_export_s,
    )


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


def _in_turn(first: Work, then: Work) -> Work:
    """Return work that is one and then the other, again and again."""

    async def lead(token: int) -> None:
        while True:
            await first(token)
            await then(token)

    return lead


async def _trouble(recovery: Recovery, reader: RedisReader) -> Trouble | None:
    """Return why the store has to be rebuilt before it is served, as far as can be told now."""
    try:
        return await recovery.trouble()
    except StoreUnavailable as fault:
        if not (await reader.head()).sequence:
            raise
        log.warning("served without comparing store and archive", fault=str(fault))
        return None


async def _renew(store: RedisStore, recovery: Recovery) -> None:
    """Go on in a new epoch where the store has lost what even the archive had not got yet."""
    while True:
        await asyncio.sleep(LOOK_S)
        with suppress(StoreFault):
            if store.is_lost and await recovery.trouble() is None:
                await store.renew()


@asynccontextmanager
async def _recovery(
    config: ServerConfig, url: str, reader: RedisReader, archive: Archive
) -> AsyncIterator[Recovery]:
    store = RedisRebuilding(url, cell=config.cell)
    try:
        yield Recovery(reader, store, archive, cell=config.cell, retention_ms=config.retention_ms)
    finally:
        await store.aclose()


@asynccontextmanager
async def _archive(config: ServerConfig) -> AsyncIterator[Archive]:
    data = Path(config.data)
    await asyncio.to_thread(data.mkdir, parents=True, exist_ok=True)
    try:
        url = archive_url(config.archive, data)
        async with Archive.open(url, config.cell, is_patient=True) as archive:
            yield archive
    except ArchiveUnusable as fault:
        raise ConfigError(str(fault)) from fault


def _lock(config: ServerConfig, url: str) -> Redlock:
    urls = [each.strip() for each in config.lock_urls.split(",")] if config.lock_urls else [url]
    try:
        return Redlock(urls, f"{{c{config.cell}}}:lock:{ARCHIVER}", ttl_s=LOCK_TTL_S)
    except (LockMisconfigured, ValueError) as fault:
        raise ConfigError(f"lock_urls: {fault}") from fault
