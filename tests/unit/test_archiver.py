"""Where the archiver goes on, and what it says to whom, over a store that the test makes up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from holdfast_server.errors import StoreUnavailable
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.archiver import Archiver, Pace
from holdfast_server.ledger.leaf import read_batch
from holdfast_server.model import Head
from tests.archives import archive_with, ledger_of, sqlite_url


@dataclass
class MadeUp:
    """A store of given stream entries, whose epoch the test may change; and its keeper."""

    bodies_kept: list[bytes]
    epoch: int = 0
    is_refusing: bool = False
    noted: list[tuple[int, int]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    waited: asyncio.Event = field(default_factory=asyncio.Event)  # for nothing, long enough

    async def head(self) -> Head:
        last = read_batch(self.bodies_kept[-1])
        first = read_batch(self.bodies_kept[0])
        return Head(self.epoch or last.epoch, last.last, first.first, last.time_ms)

    async def bodies(self, from_sequence: int, *, count: int, through: int = 0) -> list[bytes]:
        found = [each for each in self.bodies_kept if read_batch(each).last >= from_sequence]
        return [each for each in found[:count] if not 0 < through < read_batch(each).last]

    async def note_archived(self, token: int, epoch: int, sequence: int, *, keep: int) -> None:
        if self.is_refusing:
            raise StoreUnavailable("it cannot be noted")
        self.noted.append((epoch, sequence))

    async def wait_beyond(self, sequence: int, timeout_s: float) -> bool:
        self.asked.set()
        has_more = read_batch(self.bodies_kept[-1]).last > sequence
        if not has_more:
            await self.waited.wait()
            self.waited.clear()
        return has_more


@asynccontextmanager
async def leading(store: MadeUp, archive: Archive) -> AsyncIterator[Archiver]:
    archiver = Archiver(store, archive, store, Pace(keep=0, pause_s=0))
    task = asyncio.create_task(archiver.lead(1))
    try:
        yield archiver
    finally:
        task.cancel()
        await asyncio.wait({task})


async def faulty(archiver: Archiver) -> str:
    """Wait until an archiver says what is wrong, and return it."""
    while not archiver.progress.fault:  # noqa: ASYNC110  # it is no event of the archiver's
        await asyncio.sleep(0.01)
    return archiver.progress.fault


async def test_all_of_a_store_is_archived_and_noted(tmp_path: Path) -> None:
    store = MadeUp(ledger_of(1, batches=100).bodies)
    head = await store.head()
    async with archive_with(sqlite_url(tmp_path)) as archive, leading(store, archive) as archiver:
        await store.asked.wait()
        assert (await archive.archived()).sequence == head.sequence
        assert archiver.progress.sequence == head.sequence
        assert store.noted[-1] == (head.epoch, head.sequence)


async def test_what_is_archived_already_is_noted_again_under_the_epoch_of_now(
    tmp_path: Path,
) -> None:
    bodies = ledger_of(2).bodies
    store = MadeUp(bodies, epoch=9)
    head = await store.head()
    async with (
        archive_with(sqlite_url(tmp_path), *bodies) as archive,
        leading(store, archive) as archiver,
    ):
        await store.asked.wait()
        assert store.noted == [(9, head.sequence)]
        assert archiver.progress.sequence == head.sequence


async def test_a_transaction_is_bounded_and_a_gap_beyond_the_bound_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_server.ledger.archiver.ENTRIES_MAX", 40)
    bodies = ledger_of(5, batches=60).bodies
    store = MadeUp([*bodies[:20], *bodies[-2:]])
    ends = [read_batch(body) for body in bodies[:20]]
    async with archive_with(sqlite_url(tmp_path)) as archive, leading(store, archive) as archiver:
        assert (await faulty(archiver)).startswith(f"entries {ends[-1].last + 1} to ")
        noted = [0, *(sequence for _epoch, sequence in store.noted)]
    assert noted[-1] == ends[-1].last
    assert all(now - before <= 40 for before, now in pairwise(noted))


async def test_an_epoch_that_begins_without_an_entry_is_archived_too(tmp_path: Path) -> None:
    store = MadeUp(ledger_of(6).bodies)
    head = await store.head()
    async with archive_with(sqlite_url(tmp_path)) as archive, leading(store, archive) as archiver:
        await store.asked.wait()
        store.epoch = head.epoch + 1
        store.waited.set()
        assert await archiver.progress.wait(head.sequence, 30, epoch=head.epoch + 1)
        assert store.noted[-1] == (head.epoch + 1, head.sequence)


async def test_a_store_that_went_back_is_told_nothing(tmp_path: Path) -> None:
    bodies = ledger_of(3).bodies
    store = MadeUp(bodies[:-1])
    async with (
        archive_with(sqlite_url(tmp_path), *bodies) as archive,
        leading(store, archive) as archiver,
    ):
        assert (await faulty(archiver)).startswith("the store went back to ")
        assert store.noted == []
        assert not archiver.progress.is_known


async def test_who_waits_is_told_only_what_the_store_has_noted(tmp_path: Path) -> None:
    store = MadeUp(ledger_of(4).bodies, is_refusing=True)
    head = await store.head()
    async with archive_with(sqlite_url(tmp_path)) as archive, leading(store, archive) as archiver:
        assert await faulty(archiver) == "it cannot be noted"
        assert archiver.progress.sequence == 0
        store.is_refusing = False
        assert await archiver.progress.wait(head.sequence, 30)
        assert store.noted[-1] == (head.epoch, head.sequence)
