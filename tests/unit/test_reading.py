"""What every read of the store has in common."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from holdfast_server.errors import StoreUnavailable
from holdfast_server.stores.redis.reader import read


async def test_a_cancellation_that_a_command_swallows_still_ends_the_reader() -> None:
    begun = asyncio.Event()

    async def command() -> int:
        try:
            begun.set()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return 1  # as asyncio.wait_for does before Python 3.12
        return 0

    reading = asyncio.create_task(read(command()))
    await begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.mark.parametrize("fault", [RedisConnectionError("gone"), OSError("gone"), TimeoutError()])
async def test_whatever_keeps_a_command_from_its_answer_means_unavailable(fault: Exception) -> None:
    async def command() -> int:
        raise fault

    with pytest.raises(StoreUnavailable, match="cannot be read"):
        await read(command())


async def test_an_answer_is_passed_on() -> None:
    async def command() -> int:
        return 7

    assert await read(command()) == 7
