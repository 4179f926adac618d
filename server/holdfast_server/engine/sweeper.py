"""The sweeper: holds end on time even when nobody asks for anything."""

from __future__ import annotations

import asyncio

import structlog

from holdfast_server.engine.batcher import Batcher
from holdfast_server.errors import StoreFault

log = structlog.get_logger(__name__)

SWEEP_INTERVAL_S = 0.05


async def sweep_forever(batcher: Batcher, *, interval_s: float = SWEEP_INTERVAL_S) -> None:
    """End due holds at most 100 ms late: an empty batch whenever the engine was idle.

    Every batch ends what is due, so a busy engine needs no sweep.  Two sweepers, or a sweeper on
    each of several servers, are harmless.
    """
    loop = asyncio.get_running_loop()
    is_failing = False
    while True:
        await asyncio.sleep(interval_s)
        if loop.time() - batcher.last_batch_at < interval_s:
            continue
        try:
            while await batcher.sweep():
                pass
            if is_failing:
                log.info("sweeping again")
            is_failing = False
        except StoreFault as fault:
            if not is_failing:
                log.warning("cannot sweep", fault=str(fault))
            is_failing = True
