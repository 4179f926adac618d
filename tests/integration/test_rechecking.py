"""replay_decides_alike over a whole archive, and what it finds when something was altered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.rechecking import decide_again
from holdfast_server.ledger.state import state_digest
from tests.contract.histories import long_history
from tests.recorded import Recorded, recorded


@asynccontextmanager
async def archived(cell: Recorded, folder: Path) -> AsyncIterator[Archive]:
    async with Archive.open(f"sqlite+aiosqlite:///{folder / 'archive.db'}") as archive:
        await archive.apply(cell.tables.bodies)
        yield archive


@pytest.mark.parametrize("seed", range(2))
async def test_an_archive_is_decided_again_to_the_state_that_it_holds(
    seed: int, tmp_path: Path
) -> None:
    cell = recorded(long_history(seed, batches=20, ids=40)._replace(hold_budget=100))
    async with archived(cell, tmp_path) as archive:
        found = await decide_again(archive)
    assert found.entries == cell.tables.sequence
    assert found.differences == []
    assert found.digest == found.kept == state_digest(cell.tables.items, cell.tables.holds)


async def test_an_empty_archive_is_decided_again(tmp_path: Path) -> None:
    async with archived(Recorded.new(), tmp_path) as archive:
        found = await decide_again(archive)
    assert (found.entries, found.differences) == (0, [])
    assert found.digest == found.kept


@pytest.mark.parametrize(
    ("change", "is_decision"),
    [
        ("UPDATE batches SET time_ms = time_ms + 1 WHERE first <= 30 AND last >= 30", True),
        ("UPDATE items SET row = zeroblob(100) WHERE sku = 'A'", False),
        ("DELETE FROM reservations WHERE state = 'H'", False),
    ],
)
async def test_what_was_altered_in_an_archive_is_found(
    change: str, is_decision: bool, tmp_path: Path
) -> None:
    async with archived(recorded(long_history(1, batches=4, ids=8)), tmp_path) as archive:
        async with archive._database.writing() as connection:
            done = await connection.execute(text(change))
            assert done.rowcount > 0
        found = await decide_again(archive)
    assert bool(found.differences) == is_decision
    assert is_decision or found.digest != found.kept
