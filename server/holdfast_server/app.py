"""The composition root: settings in, a running server out."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from holdfast_server.config import ServerConfig
from holdfast_server.engine.archived import ArchivedBatcher
from holdfast_server.engine.audited import AuditedStore
from holdfast_server.engine.backlog import Backlog, watch_backlog
from holdfast_server.engine.batcher import Batcher, BatchLimits, Store
from holdfast_server.engine.load import LoadBounds, LoadGauge, watch_load
from holdfast_server.engine.sweeper import sweep_forever
from holdfast_server.errors import StoreUnavailable
from holdfast_server.keeping import Kept, keeping, log_directory
from holdfast_server.ledger.history import History
from holdfast_server.ledger.log_reader import LogReader
from holdfast_server.rpc.call import Calls
from holdfast_server.rpc.identity import Identities, load_principals
from holdfast_server.rpc.server import Backend, RpcServer
from holdfast_server.rpc.watch import level_field
from holdfast_server.stores.redis.embedded import (
    Durability,
    EmbeddedConfig,
    EmbeddedEvent,
    EmbeddedValkey,
)
from holdfast_server.stores.redis.reader import RedisReader
from holdfast_server.stores.redis.startup import examine
from holdfast_server.stores.redis.store import RedisStore, RedisStoreConfig
from holdfast_server.stores.redis.tail import RedisTail
from holdfast_server.watch.hub import Hub, HubLimits
from holdfast_server.watch.levels import Levels
from holdfast_server.watch.tail import Tail

log = structlog.get_logger(__name__)

HEALTH_INTERVAL_S = 0.1
GC_THRESHOLDS = (10_000, 20, 50)


@dataclass(frozen=True)
class Running:
    """A server that serves."""

    target: str
    store: RedisStore
    batcher: Batcher
    calls: Calls
    rpc: RpcServer
    hub: Hub
    embedded: EmbeddedValkey | None
    kept: Kept | None
    tasks: frozenset[asyncio.Task[None]]


_TROUBLE = frozenset({"died", "restart_failed", "aof_truncated", "killed"})


def _note(event: EmbeddedEvent) -> None:
    write = log.warning if event.kind in _TROUBLE else log.info
    write("embedded store", kind=event.kind, pid=event.pid, detail=event.detail)


@asynccontextmanager
async def embedded_store(config: ServerConfig) -> AsyncIterator[EmbeddedValkey | None]:
    """Run the private store, or nothing when a Redis URL is given."""
    if config.redis_url:
        yield None
        return
    settings = EmbeddedConfig(
        data_dir=Path(config.data),
        durability=_on_disk(config),
        maxmemory_bytes=config.maxmemory_mb << 20,
    )
    valkey = await EmbeddedValkey.start(settings, on_event=_note)
    try:
        yield valkey
    finally:
        await valkey.aclose()


def _on_disk(config: ServerConfig) -> Durability:
    """Return what the embedded store itself writes: an archived answer is safe elsewhere too."""
    chosen = "second" if config.durability == "archived" else config.durability
    return chosen  # type: ignore[return-value]  # checked by ServerConfig


def _store_config(config: ServerConfig, url: str) -> RedisStoreConfig:
    # Memory durability promises nothing, so a restarted store is a new history, not a loss.
    # It is one if the archive has what the store has lost.
    is_recovered = config.on_rollback == "recover" and config.archive != "off"
    is_private_memory = not config.redis_url and config.durability == "memory" and not is_recovered
    return RedisStoreConfig(
        url=url,
        cell=config.cell,
        timeout_ms=config.store_timeout_ms,
        hold_budget=config.hold_budget,
        retention_ms=config.retention_ms,
        accept_loss=is_private_memory or config.on_rollback == "new-epoch",
    )


def _deciding(config: ServerConfig, store: RedisStore, kept: Kept | None) -> Store:
    """Return what decides batches: the store, with all that is kept of what it answers."""
    if kept is None:
        return store
    return AuditedStore(
        store,
        kept.trail,
        blocks_mutations=config.audit_overflow_mutations == "block",
        blocks_queries=config.audit_overflow_queries == "block",
    )


def _batcher(
    config: ServerConfig, store: RedisStore, gauge: LoadGauge, kept: Kept | None
) -> Batcher:
    """Return the engine; its answers wait for the archive where that is asked for."""
    limits = BatchLimits(
        lanes=config.lanes,
        operations_max=config.batch_operations_max,
        lines_max=config.batch_lines_max,
        queue_len_max=config.queue_len_max,
    )
    backlog = Backlog(config.archive_backlog_max, config.audit_overflow_mutations == "block")
    deciding = _deciding(config, store, kept)
    if kept is None or config.durability != "archived":
        return Batcher(deciding, limits, gauge, backlog)
    return ArchivedBatcher(
        store=deciding,
        limits=limits,
        gauge=gauge,
        backlog=backlog,
        progress=kept.progress,
        decided=lambda: store.known,
        timeout_s=config.store_timeout_ms / 1000,
    )


def _watching_backlog(batcher: Batcher, store: RedisStore, kept: Kept) -> Coroutine[Any, Any, None]:
    behind = kept.progress.behind
    return watch_backlog(batcher.backlog, lambda: behind(store.known.sequence))


def _hub_limits(config: ServerConfig) -> HubLimits:
    return HubLimits(
        watches_max=config.watches_max,
        age_s_max=config.connection_age_s,
        blocked_s_max=config.watch_blocked_ms / 1000,
    )


async def _examine(url: str) -> None:
    """Log what is unsafe about the store.  Raises StoreUnavailable when it cannot be used."""
    for finding in await examine(url):
        if finding.is_fatal:
            raise StoreUnavailable(finding.message)
        log.warning("store setting", finding=finding.message)


async def _watch_health(rpc: RpcServer, store: RedisStore, calls: Calls) -> None:
    while True:
        rpc.health.set_serving(store.is_healthy and not calls.is_draining)
        await asyncio.sleep(HEALTH_INTERVAL_S)


@asynccontextmanager
async def running(config: ServerConfig, *, share_port: bool = False) -> AsyncIterator[Running]:
    """Serve inside the block, and drain at its end.

    Raises StoreUnavailable, DataDirInUse, EmbeddedStartFailed, ConfigError, or OSError when the
    address is taken.
    """
    principals = load_principals(Path(config.principals)) if config.principals else []
    async with AsyncExitStack() as stack:
        valkey = await stack.enter_async_context(embedded_store(config))
        url = valkey.url if valkey else config.redis_url
        if not valkey:
            await _examine(url)
        store = RedisStore(_store_config(config, url))
        stack.push_async_callback(store.aclose)
        reader = RedisReader(url, cell=config.cell, timeout_ms=config.store_timeout_ms)
        stack.push_async_callback(reader.aclose)
        gauge = LoadGauge(LoadBounds(config.load_high_ms, config.load_overloaded_ms))
        source = RedisTail(url, reader, cell=config.cell, timeout_ms=config.store_timeout_ms)
        stack.push_async_callback(source.aclose)
        tail = Tail(source, stale_s=config.watch_stale_ms / 1000)
        kept = await stack.enter_async_context(keeping(config, url, store, reader))
        batcher = _batcher(config, store, gauge, kept)
        calls = Calls(Identities(principals), gauge)
        levels = Levels(source.level, level_field)
        hub = Hub(source, tail, levels, answered=store, limits=_hub_limits(config))
        history = History(reader, kept.archive if kept else None)
        trail = kept.trail if kept else None
        log_reader = LogReader(log_directory(config))
        backend = Backend(batcher, reader, history, tail, hub, log_reader, kept, trail)
        rpc = RpcServer(config, calls, backend, share_port=share_port)
        target = await rpc.start()
        tasks = await stack.enter_async_context(
            _background(
                batcher.run(),
                sweep_forever(batcher),
                watch_load(gauge, batcher.delays_at),
                tail.run(),
                hub.run(),
                _watch_health(rpc, store, calls),
                *((*kept.works, _watching_backlog(batcher, store, kept)) if kept else ()),
            )
        )
        stack.push_async_callback(rpc.drain, config.drain_timeout_ms / 1000)
        rpc.health.set_serving(True)
        log.info("serving", target=target, open_mode=calls.identities.is_open, epoch=store.known[0])
        yield Running(target, store, batcher, calls, rpc, hub, valkey, kept, tasks)


@asynccontextmanager
async def _background(
    *works: Coroutine[Any, Any, None],
) -> AsyncIterator[frozenset[asyncio.Task[None]]]:
    """Run the works for as long as the block; they never end by themselves unless they fail."""
    tasks = frozenset(asyncio.create_task(work) for work in works)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def settle_heap() -> None:
    """Spare the collector what a started server keeps for good, and run it less often.

    A call makes some hundred short-lived objects and no cycles: by default they start a young
    collection every few calls (8 us a unary call, 2 us an operation on Pipeline).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def serve(config: ServerConfig, *, share_port: bool = False) -> None:
    """Serve until SIGTERM or SIGINT, then drain.  A second signal ends at once.

    A signal during the start is heeded when that is over.  Raises what `running` raises, or the
    error of a background work that failed.
    """
    signalled = _signalled()
    async with running(config, share_port=share_port) as server:
        settle_heap()
        stop = asyncio.create_task(signalled.wait())
        done, _pending = await asyncio.wait(
            {stop, *server.tasks}, return_when=asyncio.FIRST_COMPLETED
        )
        stop.cancel()
        log.info("draining", timeout_ms=config.drain_timeout_ms)
    calls = {" ".join(key): count for key, count in sorted(server.calls.counters.items())}
    audit = {"audit": asdict(server.kept.trail.counters)} if server.kept else {}
    log.info("served", calls=calls, **asdict(server.batcher.counters), **audit)
    for task in done - {stop}:
        task.result()


def _signalled() -> asyncio.Event:
    """Return what the first SIGTERM or SIGINT sets; both then have their default again."""
    loop, signalled = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)

    def note() -> None:
        signalled.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, note)
    return signalled
