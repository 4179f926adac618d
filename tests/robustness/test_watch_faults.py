"""Readers of Watch under load while something fails: they miss nothing, and learn nothing false."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.robustness.cutter import FIRST_READ, wired
from tests.robustness.followers import Follower, following
from tests.robustness.load import stocked, under_load
from tests.robustness.processes import free_address, server_process
from tests.robustness.test_stopping import workers_of
from tests.serving import Client, connected, seconds, serving
from tests.watching import Watching, check_gapless

AGENTS, STEPS = 6, 100
CUTS, SEED = 5, 3


def followers(client: Client, skus: list[str]) -> list[Follower]:
    """Return a reader of all items, one of some, and one that is paced."""
    return [
        Follower(client),
        Follower(client, *skus[:2], "no such"),
        Follower(client, *skus, min_interval=seconds(0.05), heartbeat=seconds(1)),
    ]


@pytest.mark.parametrize("seed", [1, 2])
async def test_cuts_between_the_server_and_its_store_lose_no_change(
    store_url: str, tmp_path: Path, seed: int
) -> None:
    async with (
        wired(store_url, tmp_path, first=FIRST_READ) as (wire, near_end),
        serving(redis_url=near_end) as server,
    ):
        skus = await stocked(server)
        async with (
            following(server, *followers(server, skus)),
            under_load(server, skus=skus, agents=AGENTS) as load,
        ):
            wire.cut_at_random(seed, bytes_max=20_000)
            while wire.cuts < CUTS:
                await load.after(STEPS)
            wire.mend()


async def test_cuts_between_a_reader_and_the_server_lose_no_change(tmp_path: Path) -> None:
    async with (
        serving(data=str(tmp_path), durability="memory") as server,
        wired(server.target, tmp_path, first=b"") as (wire, near_end),
        connected(near_end) as far,
    ):
        skus = await stocked(server)
        async with (
            following(server, *followers(far, skus)),
            under_load(server, skus=skus, agents=AGENTS) as load,
        ):
            wire.cut_at_random(SEED, bytes_max=40_000)
            while wire.cuts < CUTS:
                await load.after(STEPS)
            wire.mend()


async def test_a_reader_slower_than_the_changes_gets_the_newest_levels(tmp_path: Path) -> None:
    async with serving(data=str(tmp_path), durability="memory") as server:
        skus = await stocked(server)
        # The window of its connection holds a few messages, so that it falls behind.
        async with (
            connected(server.target, ("grpc.http2.bdp_probe", 0)) as slow,
            Watching(slow, *skus) as watch,
        ):
            async with under_load(server, skus=skus, agents=AGENTS) as load:
                for _ in range(5):
                    await load.after(STEPS)
                    await watch.next()
            await watch.until((await server.head()).sequence)
            await check_gapless(server, watch, skus=skus)


async def test_a_server_that_is_killed_is_resumed_without_a_gap(tmp_path: Path) -> None:
    settings = {"listen": free_address(), "data": str(tmp_path)}
    async with connected(settings["listen"]) as client:
        async with server_process(**settings):
            skus = await stocked(client)
        readers = followers(client, skus)
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(server_process(**settings))
            second = await stack.enter_async_context(AsyncExitStack())
            await stack.enter_async_context(following(client, *readers))
            load = await stack.enter_async_context(under_load(client, skus=skus, agents=AGENTS))
            await load.after(STEPS)
            await first.kill()
            await second.enter_async_context(server_process(**settings))
            await load.after(STEPS)
        assert all(len(reader.streams) > 1 for reader in readers)


async def test_a_worker_that_is_killed_is_resumed_at_another(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data": str(tmp_path), "listen": free_address(), "workers": 2}
    async with server_process(**settings) as server, connected(settings["listen"]) as client:
        skus = await stocked(client)
        readers = followers(client, skus)
        async with (
            following(client, *readers),
            under_load(client, skus=skus, agents=AGENTS) as load,
        ):
            await load.after(STEPS)
            for worker in workers_of(server).values():  # the reader is at one of them
                worker.kill()
            await load.after(STEPS)
        assert all(len(reader.streams) > 1 for reader in readers)


async def test_a_store_that_is_killed_is_followed_on(tmp_path: Path) -> None:
    async with serving(data=str(tmp_path), durability="second") as server:
        skus = await stocked(server)
        embedded = server.server.embedded
        assert embedded is not None
        readers = followers(server, skus)
        async with (
            following(server, *readers),
            under_load(server, skus=skus, agents=AGENTS) as load,
        ):
            await load.after(STEPS)
            assert embedded.pid is not None
            os.kill(embedded.pid, signal.SIGKILL)
            await load.after(STEPS)
        assert embedded.restarts == 1
        assert all(len(reader.streams) == 1 for reader in readers)  # nobody noticed
