"""kill -9 in mid-load: what was acknowledged is found afterwards, and every promise holds."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.robustness.load import check_promises, stocked, under_load
from tests.robustness.processes import free_address, server_process
from tests.serving import connected, serving

KILLS, STEPS = 2, 150


async def test_a_server_killed_in_mid_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    settings = {"listen": free_address(), "data": str(tmp_path), "durability": "always"}
    async with connected(settings["listen"]) as client:
        async with server_process(**settings):
            skus = await stocked(client)
        async with under_load(client, skus=skus) as load:
            for _ in range(KILLS):
                async with server_process(**settings) as server:
                    await load.after(STEPS)
                    await server.kill()
            async with server_process(**settings):
                await load.finish()
                await check_promises(client, load.acknowledged)
        assert load.failures.total() > 0
        async with server_process(**settings):
            await check_promises(client, load.acknowledged)


async def test_a_store_killed_in_mid_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    async with serving(data=str(tmp_path), durability="always") as server:
        skus = await stocked(server)
        embedded = server.server.embedded
        assert embedded is not None
        async with under_load(server, skus=skus) as load:
            for _ in range(KILLS):
                await load.after(STEPS)
                assert embedded.pid is not None
                os.kill(embedded.pid, signal.SIGKILL)
            await load.after(STEPS)
        assert embedded.restarts == KILLS
        await check_promises(server, load.acknowledged)
