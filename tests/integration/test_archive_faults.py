"""What happens to an archive: connections that are cut, rows altered, ranges that are gone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from holdfast_server.errors import ResumeTokenExpired, StoreUnavailable
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.audit import AuditKind, AuditRecord
from holdfast_server.ledger.comparing import compare
from holdfast_server.ledger.faults import ArchivePurged
from holdfast_server.ledger.leaf import read_batch
from holdfast_server.ledger.past import Past
from holdfast_server.model import Context, Kind
from tests.archives import archive_with, ledger_of, new_database
from tests.recorded import RecordedTables

OPEN = """
import asyncio, sys
from holdfast_server.ledger.archive import Archive

async def main():
    async with Archive.open(sys.argv[1]) as archive:
        print((await archive.archived()).sequence)

asyncio.run(main())
"""

# Not pg_stat_activity: within a transaction that says the same all the time.
WAITING = """FROM pg_locks WHERE NOT granted AND database =
    (SELECT oid FROM pg_database WHERE datname = current_database())"""


# ---- Cut off ----


async def test_a_backend_that_is_killed_in_a_transaction_leaves_nothing(postgres: str) -> None:
    tables = ledger_of(1)
    async with archive_with(await new_database(postgres), *tables.bodies[:5]) as archive:
        before = await archive.archived()
        async with archive._database.writing() as blocking:
            await blocking.execute(text("LOCK TABLE positions IN EXCLUSIVE MODE"))
            applying = asyncio.create_task(archive.apply(tables.bodies[5:]))
            while not await blocking.scalar(text(f"SELECT count(*) {WAITING}")):
                assert not applying.done()
            await blocking.execute(text(f"SELECT pg_terminate_backend(pid) {WAITING}"))
            with pytest.raises(StoreUnavailable, match="the archive cannot be reached"):
                await applying
        assert await archive.archived() == before
        await archive.apply(tables.bodies[5:])
        assert await compare(archive) == (tables.sequence, [])


async def test_two_processes_may_open_a_new_archive_at_once(url: str) -> None:
    command = (sys.executable, "-c", OPEN, url)
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    started = [await asyncio.create_subprocess_exec(*command, **pipes) for _ in range(2)]
    said = await asyncio.gather(*(process.communicate() for process in started))
    assert [out for out, _err in said] == [b"0\n"] * 2, said


# ---- The tables against the ledger ----


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE items SET held = held + 1 WHERE sku = 'apple'", "items ('apple',): not as"),
        ("DELETE FROM locations WHERE sku = 'apple' AND location = 'east'", "is not there"),
        ("UPDATE reservations SET id = 'forged' WHERE id = 'r-0-0'", "never made it"),
    ],
)
async def test_a_row_that_the_ledger_did_not_make_is_named(
    archive: Archive, change: str, words: str
) -> None:
    tables = ledger_of(3)
    await archive.apply(tables.bodies)
    assert await compare(archive) == (tables.sequence, [])
    async with archive._database.writing() as connection:
        assert (await connection.execute(text(change))).rowcount == 1
    entries, differences = await compare(archive)
    assert entries == tables.sequence
    assert any(words in difference for difference in differences), differences


async def test_a_batch_that_is_not_there_is_named(archive: Archive) -> None:
    tables = ledger_of(3)
    await archive.apply(tables.bodies)
    lost = read_batch(tables.bodies[4])
    async with archive._database.writing() as connection:
        await connection.execute(text(f"DELETE FROM batches WHERE last = {lost.last}"))
    assert (await compare(archive)).differences == [f"ledger: no batch begins at {lost.first}"]


# ---- What is gone is told from what never was ----


@pytest_asyncio.fixture
async def tables(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> RecordedTables:
    """A ledger that is archived, and of which ranges of 32 entries may go."""
    monkeypatch.setattr("holdfast_server.ledger.archive.RANGE", 32)
    tables = ledger_of(8, batches=60)
    await archive.apply(tables.bodies)
    return tables


async def test_batches_that_are_gone_are_told_with_the_first_whole_one(
    archive: Archive, tables: RecordedTables
) -> None:
    assert await archive.purge("ledger", tables.ledger[70].time_ms, now_ms=0) == 64
    batches = [read_batch(body) for body in tables.bodies]
    whole = next(batch.first for batch in batches if batch.first > 64)
    for sequence in (1, 64):
        with pytest.raises(ArchivePurged, match=f"before {whole} are gone"):
            await archive.batches(sequence, limit=5)
    assert (await archive.batches(whole, limit=1))[0].first == whole
    with pytest.raises(ArchivePurged):
        await compare(archive)


async def test_what_came_after_the_purged_is_found_by_time(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = ledger_of(8, batches=60)
    size = read_batch(tables.bodies[9]).last
    monkeypatch.setattr("holdfast_server.ledger.archive.RANGE", size)
    await archive.apply(tables.bodies)
    moment = tables.ledger[size].time_ms
    assert await archive.purge("ledger", moment, now_ms=0) == size
    found = [leaf async for leaf in archive.since(moment)]
    assert len(found) == tables.sequence - size


async def test_the_newest_range_stays_however_old(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = ledger_of(8, batches=20)
    monkeypatch.setattr("holdfast_server.ledger.archive.RANGE", tables.sequence)
    await archive.apply(tables.bodies)
    assert await archive.purge("ledger", tables.ledger[-1].time_ms + 1, now_ms=0) == 0
    assert await archive.entries(1, limit=1_000) == tables.ledger


async def test_a_reservation_whose_entries_are_gone_is_no_empty_answer(
    archive: Archive, tables: RecordedTables
) -> None:
    await archive.purge("ledger", tables.ledger[70].time_ms, now_ms=0)
    old = next(entry for entry in tables.ledger if entry.kind is Kind.RESERVE)
    with pytest.raises(ArchivePurged, match="before 65 are gone"):
        await archive.entries_of(old.id)
    with pytest.raises(ResumeTokenExpired, match="starts at sequence 65"):
        await Past(archive).entries_of(old.id)
    assert await archive.entries_of("never-was") == []


async def test_an_item_whose_rows_are_gone_is_no_item_that_never_was(
    archive: Archive, tables: RecordedTables
) -> None:
    assert await archive.newest_touches(["never-was"], through=70) == {}
    await archive.purge("ledger", tables.ledger[70].time_ms, now_ms=0)
    with pytest.raises(ArchivePurged):
        await archive.newest_touches(["apple", "never-was"], through=70)


async def test_what_is_left_is_told_as_before_or_said_to_be_gone(
    archive: Archive, tables: RecordedTables
) -> None:
    fields = [*tables.items, b"never-was", b"apple\x1fnowhere"]
    reservations = [key.decode() for key in tables.holds if not key.startswith(b"~")]
    ids = [*reservations[::20], "never-was"]
    ends = [read_batch(body).last for body in tables.bodies[::8]]

    async def told() -> list[Any]:
        past, found = Past(archive), []
        for sequence in ends:
            for field in fields:
                found.append(await _or_gone(past.rows([field], sequence)))
            for id_ in ids:
                found.append(await _or_gone(past.record(id_, sequence)))
        return found

    before = await told()
    await archive.purge("ledger", tables.ledger[120].time_ms, now_ms=0)
    after = await told()
    assert GONE not in before
    assert {now for now, then in zip(after, before, strict=True) if now != then} == {GONE}
    assert sum(each != GONE for each in after) > len(after) // 3


GONE = "gone"


async def _or_gone(asked: Coroutine[Any, Any, Any]) -> Any:
    try:
        return repr(await asked)
    except ResumeTokenExpired:
        return GONE


async def test_a_query_stays_while_one_before_it_has_to(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_server.ledger.archive.RANGE", 4)
    said = AuditRecord(AuditKind.QUERY, 0, "q", 0, "agent", Context(), 1, 1, 0, ((), ()))
    times = [1, 2, 50, 4, 5, 6, 7, 8, 60]
    records = [said._replace(time_ms=ms, id=f"q-{at}") for at, ms in enumerate(times)]
    await archive.apply_queries([record.pack(0) for record in records], "9-0")
    assert await archive.purge("queries", 10, now_ms=0) == 0
    assert await archive.purge("queries", 55, now_ms=0) == 8
