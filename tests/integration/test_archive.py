"""The archive on SQLite and PostgreSQL: in order, exactly once, equal to the fold of the ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import pytest
from sqlalchemy import text

from holdfast_server.errors import StoreUnavailable
from holdfast_server.ledger import schema
from holdfast_server.ledger.archive import Archive, Archived, Review
from holdfast_server.ledger.audit import AuditKind, AuditRecord
from holdfast_server.ledger.comparing import compare
from holdfast_server.ledger.faults import (
    ArchiveConflict,
    ArchiveGap,
    ArchivePurged,
)
from holdfast_server.ledger.leaf import entry_of, leaves_of, read_batch, read_leaf
from holdfast_server.ledger.retention import DAY_MS, Retention
from holdfast_server.ledger.upserts import put
from holdfast_server.model import Context
from tests.archives import (
    archive_with,
    held_by,
    items_of,
    ledger_of,
    places_of,
    sqlite_url,
)


async def is_fold_of(archive: Archive, tables: Any) -> None:
    assert {sku: row async for sku, row in archive.items()} == items_of(tables)
    assert {(sku, at): row async for sku, at, row in archive.locations()} == places_of(tables)
    assert {name: record async for name, record in archive.held()} == held_by(tables)
    entries = await archive.entries(1, limit=100_000)
    assert entries == tables.ledger
    assert await compare(archive) == (tables.sequence, [])


# ---- In order, exactly once ----


@pytest.mark.parametrize("seed", range(3))
async def test_the_tables_are_the_fold_of_the_ledger(archive: Archive, seed: int) -> None:
    tables, random, at = ledger_of(seed), Random(seed), 0
    while at < len(tables.bodies):
        size = random.randrange(1, 12)
        archived = await archive.apply(tables.bodies[at : at + size])
        at += size
        assert archived == await archive.archived()
    assert archived[:2] == (tables.epoch, tables.sequence)
    await is_fold_of(archive, tables)


async def test_what_is_archived_already_is_left_out(archive: Archive) -> None:
    tables = ledger_of(1)
    await archive.apply(tables.bodies[:20])
    await archive.apply(tables.bodies[5:30])
    at = await archive.apply(tables.bodies)
    assert at == await archive.apply(tables.bodies[-1:])
    await is_fold_of(archive, tables)


async def test_a_gap_is_refused_and_changes_nothing(archive: Archive) -> None:
    tables = ledger_of(1)
    before = await archive.apply(tables.bodies[:3])
    missing = read_batch(tables.bodies[4])
    with pytest.raises(ArchiveGap, match=f"entries {missing.first} to {missing.last} are missing"):
        await archive.apply([tables.bodies[3], tables.bodies[5]])
    assert await archive.archived() == before
    assert len(await archive.entries(1, limit=1_000)) == before.sequence


async def test_an_archive_that_begins_late_is_a_gap(archive: Archive) -> None:
    with pytest.raises(ArchiveGap, match="entries 1 to "):
        await archive.apply(ledger_of(1).bodies[1:])
    assert await archive.archived() == Archived()


async def test_another_history_is_refused(archive: Archive) -> None:
    tables, other = ledger_of(1), ledger_of(2)
    at = await archive.apply(tables.bodies[:5])
    forged = msgpack.unpackb(tables.bodies[4], raw=True)
    forged[2] += 1
    with pytest.raises(ArchiveConflict, match=f"another entry {at.sequence}"):
        await archive.apply([msgpack.packb(forged, use_bin_type=False), tables.bodies[5]])
    with pytest.raises(ArchiveConflict):
        await archive.apply(other.bodies)
    older = msgpack.unpackb(tables.bodies[5], raw=True)
    older[1] -= 1
    with pytest.raises(ArchiveConflict, match="do not follow"):
        await archive.apply([msgpack.packb(older, use_bin_type=False)])
    assert await archive.archived() == at


async def test_history_goes_on_in_a_newer_epoch(archive: Archive) -> None:
    tables = ledger_of(1)
    await archive.apply(tables.bodies[:5])
    newer = [msgpack.unpackb(body, raw=True) for body in tables.bodies[5:]]
    for body in newer:
        body[1] += 1
    at = await archive.apply([msgpack.packb(body, use_bin_type=False) for body in newer])
    assert at[:2] == (tables.epoch + 1, tables.sequence)


async def test_a_transaction_that_breaks_off_leaves_nothing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = ledger_of(1)
    before = await archive.apply(tables.bodies[:5])
    calls = 0

    def breaks_off(connection: Any, table: Any, rows: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            connection.execute(text("INSERT INTO positions (stream) VALUES (NULL)"))
        put(connection, table, rows)

    monkeypatch.setattr("holdfast_server.ledger.archive.put", breaks_off)
    with pytest.raises(StoreUnavailable, match="the archive cannot be reached"):
        await archive.apply(tables.bodies[5:])
    monkeypatch.undo()
    assert await archive.archived() == before
    await archive.apply(tables.bodies[5:])
    await is_fold_of(archive, tables)


async def test_a_cancelled_transaction_leaves_nothing(archive: Archive) -> None:
    tables = ledger_of(1, batches=200)
    before = await archive.apply(tables.bodies[:2])
    applying = asyncio.create_task(archive.apply(tables.bodies[2:]))
    for _ in range(20):
        await asyncio.sleep(0)
    applying.cancel()
    await asyncio.wait({applying})
    assert await archive.archived() == before
    await archive.apply(tables.bodies[2:])
    await is_fold_of(archive, tables)


async def test_a_full_disk_takes_nothing_and_says_so(tmp_path: Path) -> None:
    tables = ledger_of(1, batches=300)
    async with archive_with(sqlite_url(tmp_path), *tables.bodies[:2]) as archive:
        before = await archive.archived()

        def fill(connection: Any) -> None:
            pages = connection.execute(text("PRAGMA page_count")).scalar()
            connection.execute(text(f"PRAGMA max_page_count = {pages}"))

        await archive._database.write(fill)
        with pytest.raises(StoreUnavailable, match="full"):
            await archive.apply(tables.bodies[2:])
        assert await archive.archived() == before


# ---- What is read ----


async def test_batches_and_touches_are_found_by_sequence(archive: Archive) -> None:
    tables = ledger_of(4)
    await archive.apply(tables.bodies)
    batches = [read_batch(body) for body in tables.bodies]
    for wanted in batches[::7]:
        found = (await archive.batches(wanted.last, limit=1))[0]
        assert (found.epoch, found.time_ms, found.first, found.last) == (
            wanted.epoch,
            wanted.time_ms,
            wanted.first,
            wanted.last,
        )
        assert list(found.rows) == list(wanted.rows)
        assert list(found.leaves) == leaves_of(wanted, 0)
        through = wanted.first
        touching = [b.last for b in batches if b"apple" in b.rows[::2] and b.first <= through]
        assert await archive.touches("apple", through=through, limit=5) == touching[::-1][:5]
    assert await archive.batches(tables.sequence + 1, limit=5) == []
    assert await archive.sequence_at(batches[3].time_ms) >= batches[3].last
    assert await archive.sequence_at(batches[0].time_ms - 1) == 0


async def test_a_reservation_is_found_long_after_its_end(archive: Archive) -> None:
    tables = ledger_of(5)
    await archive.apply(tables.bodies)
    for entry in tables.ledger:
        if entry.reservation is not None:
            found = await archive.reservation(entry.id)
            last = [each for each in tables.ledger if each.id == entry.id][-1]
            assert found == last.reservation
            assert [each.sequence for each in await archive.entries_of(entry.id)] == [
                each.sequence for each in tables.ledger if each.id == entry.id
            ]
    assert await archive.reservation("nobody") is None


async def test_what_is_not_older_than_a_time_is_found(archive: Archive) -> None:
    tables = ledger_of(6)
    await archive.apply(tables.bodies)
    moment = tables.ledger[len(tables.ledger) // 2].time_ms
    found = [entry_of(leaf) async for leaf in archive.since(moment)]
    assert found == [entry for entry in tables.ledger if entry.time_ms >= moment]


async def test_a_leaf_is_what_was_recorded(archive: Archive) -> None:
    tables = ledger_of(7, batches=5)
    await archive.apply(tables.bodies)
    leaves = await archive.leaves("ledger", 2, 3)
    assert [read_leaf(leaf).sequence for leaf in leaves] == [3, 4, 5]
    assert [entry_of(leaf) for leaf in leaves] == tables.ledger[2:5]


async def test_reviews_are_noted_once(archive: Archive) -> None:
    late = Review("late", "apple", "r-1", 7, 2, "lost", 5, 10)
    await archive.add_reviews([])
    await archive.add_reviews([late, late._replace(sequence=9)])
    await archive.add_reviews([late._replace(sequence=8), late._replace(opened_ms=6)])
    async with archive._database.reading() as connection:
        found = (await connection.execute(schema.reviews.select())).all()
    assert [(row.sequence, row.reason, row.opened_ms, row.resolved_ms) for row in found] == [
        (7, "late", 5, 0),
        (9, "late", 5, 0),
        (8, "late", 5, 0),
    ]


# ---- Retention ----


class NoLogs:
    """Logs that are told what to drop."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    async def purge(self, stream: str, through: int) -> None:
        self.told.append((stream, through))


async def test_whole_ranges_go_when_their_time_has_come(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_server.ledger.archive.RANGE", 32)
    tables, logs = ledger_of(8, batches=60), NoLogs()
    await archive.apply(tables.bodies)
    retention = Retention(archive, logs, {"ledger": 1})
    newest = tables.ledger[-1].time_ms
    assert await retention.apply("ledger", tables.ledger[31].time_ms + DAY_MS) == 0
    assert await retention.apply("ledger", tables.ledger[70].time_ms + DAY_MS) == 64
    assert await retention.apply("ledger", tables.ledger[70].time_ms + DAY_MS) == 0
    assert logs.told == [("ledger", 64)]
    assert await archive.first_sequence() == 65
    assert await archive.entries(65, limit=10) == tables.ledger[64:74]
    for from_sequence in (1, 64):
        with pytest.raises(ArchivePurged, match="before 65 are gone"):
            await archive.entries(from_sequence, limit=10)
    assert {sku: row async for sku, row in archive.items()} == items_of(tables)
    old = next(entry for entry in tables.ledger if entry.reservation)
    assert await archive.reservation(old.id) is not None
    assert await retention.apply("ledger", newest + 2 * DAY_MS) == tables.sequence // 32 * 32
    async with archive._database.reading() as connection:
        purged = (await connection.execute(schema.purges.select())).all()
    assert [(row.first, row.last) for row in purged] == [
        (1, 64),
        (65, tables.sequence // 32 * 32),
    ]


async def test_queries_go_after_their_own_time(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_server.ledger.archive.RANGE", 4)
    said = AuditRecord(AuditKind.QUERY, 0, "q", 0, "agent", Context(), 1, 1, 0, ((), ()))
    records = [said._replace(time_ms=number, id=f"q-{number}") for number in range(1, 11)]
    await archive.apply_queries([record.pack(0) for record in records], "7-0")
    retention = Retention(archive, NoLogs(), {"queries": 1})
    assert await retention.apply("queries", 4 + DAY_MS) == 0
    assert await retention.apply("queries", 9 + DAY_MS) == 8
    assert await archive.queries_of("q-8") == []
    (kept,) = await archive.queries_of("q-9")
    assert kept.pack(0) == records[8].pack(0)
    assert (await archive.archived("queries"))[1:4] == (10, 10, "7-0")
