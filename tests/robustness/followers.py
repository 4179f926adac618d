"""Readers of Watch that go on through whatever ends their streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from holdfast.v1 import stock_pb2 as stock
from tests.serving import Client
from tests.watching import Watching, check_gapless

RETRY_PAUSE_S = 0.02


class Follower:
    """Keeps what it was told, stream by stream; each resumes the one before or fails."""

    def __init__(self, client: Client, *skus: str, **fields: Any) -> None:
        self.client = client
        self.skus = skus
        self.streams: list[Watching] = []
        self._fields = {"on_gap": stock.ON_GAP_FAIL, **fields}
        self._news = asyncio.Condition()

    async def run(self) -> None:
        """Follow until cancelled."""
        token = ""
        while True:
            async with Watching(self.client, *self.skus, token=token, **self._fields) as watch:
                self.streams.append(watch)
                while await watch.read() is not None:
                    await self._tell()
            reason = watch.failure.reason if watch.failure else ""
            assert reason != "RESUME_TOKEN_EXPIRED", watch.failure
            token = watch.token
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def reached(self, sequence: int) -> None:
        """Wait until it was told everything up to a sequence."""
        async with self._news:
            await self._news.wait_for(lambda: self.streams[-1].through >= sequence)

    async def begun(self, streams: int = 1) -> None:
        """Wait until so many streams have begun, and the last has told something."""
        async with self._news:
            await self._news.wait_for(
                lambda: len(self.streams) >= streams and bool(self.streams[-1].token)
            )


@asynccontextmanager
async def following(server: Client, *followers: Follower) -> AsyncIterator[None]:
    """Let readers follow during the block; at its end each must have missed nothing."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follower.run()) for follower in followers]
        for follower in followers:
            await follower.begun()
        yield
        for follower, task in zip(followers, tasks, strict=True):
            await follower.reached((await server.head()).sequence)
            task.cancel()
            await check_gapless(server, *follower.streams, skus=follower.skus)
