"""How a watch is left: by break, by cancellation, by an interrupt, or with everything else."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from contextlib import AsyncExitStack
from typing import Any

import pytest

from holdfast import AsyncClient, Client, LagCause, Lagging, Resumed, StockChanges
from holdfast.sync.watch import Watchdog
from tests.unit.watched import (
    KINDS,
    SOON,
    Script,
    changes,
    client_of,
    first,
    giving,
    heartbeat,
    level,
    serving,
    snapshot,
)

SNAPSHOT = snapshot(5, level("A", 3, 4))


async def test_breaking_out_closes_the_stream() -> None:
    script = Script(giving(SNAPSHOT))
    async with client_of("asyncio", script) as client:
        async for _change in client.watch():
            break
        await script.closed.wait()
        assert script.open == 0


async def test_breaking_out_of_a_thread_closes_the_stream() -> None:
    script = Script(giving(SNAPSHOT))

    def look(target: str) -> None:
        with Client(target, lazy=True) as client:
            for _change in client.watch():
                break
            done.wait(10)

    done = threading.Event()
    async with serving(script) as target:
        looking = asyncio.create_task(asyncio.to_thread(look, target))
        await script.closed.wait()
        done.set()
        await looking


async def test_a_block_closes_the_stream_whatever_happens_in_it() -> None:
    script = Script(giving(SNAPSHOT))

    async def fail(client: AsyncClient) -> None:
        async with client.watch() as watch:
            await anext(watch)
            raise ZeroDivisionError

    async with client_of("asyncio", script) as client:
        with pytest.raises(ZeroDivisionError):
            await fail(client)
        await script.closed.wait()


async def test_a_block_of_a_thread_closes_the_stream() -> None:
    def look(client: Client) -> None:
        with client.watch() as watch:
            assert isinstance(next(watch), StockChanges)

    script = Script(giving(SNAPSHOT))
    async with client_of("threads", script) as client:
        await asyncio.to_thread(look, client.client)
        await script.closed.wait()


async def test_iterating_again_goes_on() -> None:
    script = Script(giving(SNAPSHOT, changes(5, 6, level("A", 2, 6))))
    async with client_of("asyncio", script) as client, client.watch() as watch:
        async for change in watch:
            assert change.is_snapshot
            break
        async for change in watch:
            assert change.through_sequence == 6
            break
    assert len(script.requests) == 1


async def test_a_cancelled_wait_loses_nothing() -> None:
    go_on = asyncio.Event()

    async def behave(stream: Any) -> None:
        await stream.give(SNAPSHOT)
        await go_on.wait()
        await stream.give(changes(5, 6, level("A", 2, 6)))
        await stream.hang()

    script = Script(behave)
    async with client_of("asyncio", script) as client, client.watch() as watch:
        await anext(watch)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.01)
        go_on.set()
        assert (await anext(watch)).through_sequence == 6
    assert len(script.requests) == 1


async def test_tasks_may_share_a_watch_and_each_change_goes_to_one() -> None:
    messages = [changes(n, n + 1, level("A", 1, n + 1)) for n in range(5, 14)]
    async with client_of("asyncio", Script(giving(SNAPSHOT, *messages))) as client:
        watch = client.watch()
        told = await asyncio.gather(*(anext(watch) for _ in range(10)))
    assert sorted(one.through_sequence for one in told) == list(range(5, 15))


async def test_closing_while_nobody_takes_what_was_told() -> None:
    messages = [changes(n, n + 1, level("A", 1, n + 1)) for n in range(5, 50)]
    async with client_of("asyncio", Script(giving(SNAPSHOT, *messages))) as client:
        watch = client.watch()
        await anext(watch)
        await watch.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


FORGETFUL = """
import asyncio, sys
from holdfast import AsyncClient

async def main():
    client = AsyncClient(sys.argv[1], lazy=True)
    watch = client.watch()
    await anext(watch)
    if sys.argv[2] == "break":
        del watch
    print("read")

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["break", "keep"])
async def test_a_program_that_closes_nothing_ends_quietly(how: str) -> None:
    async with serving(Script(giving(SNAPSHOT))) as target:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-X", "dev", "-c", FORGETFUL, target, how],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "read\n")
    assert "Traceback" not in done.stderr


async def test_a_task_that_is_cancelled_takes_its_watch_with_it() -> None:
    script = Script(giving(SNAPSHOT))

    async def look(client: AsyncClient) -> None:
        async for _change in client.watch():
            reading.set()

    reading = asyncio.Event()
    async with client_of("asyncio", script) as client:
        looking = asyncio.create_task(look(client))
        await reading.wait()
        looking.cancel()
        await asyncio.wait({looking})
        assert looking.cancelled()
        del looking
        gc.collect()  # the frame of a cancelled task is part of a cycle
        await script.closed.wait()


async def test_an_interrupt_of_a_thread_leaves_the_watch_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script(giving(SNAPSHOT, changes(5, 6, level("A", 2, 6))))

    def look(client: Client) -> None:
        watch = client.watch()
        next(watch)
        with monkeypatch.context() as patch:
            patch.setattr(watch, "_next", interrupt)
            with pytest.raises(KeyboardInterrupt):
                next(watch)
        told = next(watch)
        assert isinstance(told, StockChanges)
        assert told.through_sequence == 6

    def interrupt(_stream: Any) -> None:
        raise KeyboardInterrupt

    async with client_of("threads", script) as client:
        await asyncio.to_thread(look, client.client)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_may_have_many_watches(kind: str) -> None:
    async with client_of(kind, Script(giving(SNAPSHOT))) as client:
        watches = [client.watch() for _ in range(20)]
        told = [await first(watch, 1) for watch in watches]
    assert len(told) == 20


@pytest.mark.parametrize("kind", KINDS)
async def test_two_ends_of_a_watch_do_not_meet(kind: str) -> None:
    """A watch that is closed stays closed, and another of the same client goes on."""
    async with client_of(kind, Script(giving(SNAPSHOT))) as client:
        one, other = client.watch(), client.watch()
        await first(one, 1)
        await first(other, 1)
        await one.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(one)
        assert client.levels.known("A").is_live
        await other.aclose()


class Cancellable:
    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def __next__(self) -> Any:
        raise AssertionError("nothing is read after the end")

    def cancel(self) -> None:
        self.cancelled.set()


def test_a_watchdog_bites_what_is_silent_and_nothing_else() -> None:
    dog, quick, silent = Watchdog(), Cancellable(), Cancellable()
    for _ in range(100):
        dog.watch(quick, 60)
        assert not dog.call_off()
    dog.watch(silent, 0.01)  # earlier than the last
    assert silent.cancelled.wait(10)
    assert dog.call_off()
    dog.watch(quick, 60)
    assert not dog.call_off()
    assert not quick.cancelled.is_set()
    dog.stop()
    assert dog._thread is not None
    dog._thread.join(10)
    assert not dog._thread.is_alive()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_away_for_a_while_is_found_again(kind: str) -> None:
    async with AsyncExitStack() as stack:
        async with serving(Script(giving(SNAPSHOT))) as target:
            client = KINDS[kind](target, lazy=True, retry=SOON)
            stack.push_async_callback(client.aclose)
            watch = client.watch()
            await anext(watch)
        lagging = await anext(watch)
        assert (lagging.cause, lagging.attempt) == (LagCause.DISCONNECTED, 1)
        script = Script(giving(heartbeat(5)))
        await stack.enter_async_context(serving(script, target))
        while isinstance(told := await anext(watch), Lagging):
            pass
        assert told == Resumed(5)
        assert script.tokens == ["t5"]
