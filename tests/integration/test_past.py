"""Looking back into an archive, on each database alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.decisions import Decision, decisions_of
from holdfast_server.ledger.explaining import Explanation, explain
from holdfast_server.ledger.moments import Moment, at_sequence, at_time
from holdfast_server.ledger.past import Past
from holdfast_server.ledger.rechecking import Rechecked, decide_again
from tests.archives import (
    SKUS,
    archive_with,
    ledger_of,
    new_database,
    postgres_folder,
    sqlite_url,
)

LEDGER = ledger_of(5, batches=20)
Told = tuple[list[Moment], list[Explanation], list[Decision], Rechecked]


@pytest_asyncio.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Archive]:
    async with archive_with(sqlite_url(tmp_path), *LEDGER.bodies) as archive:
        yield archive


@pytest_asyncio.fixture
async def postgresql(postgres: str) -> AsyncIterator[Archive]:
    async with archive_with(await new_database(postgres), *LEDGER.bodies) as archive:
        yield archive


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_folder() as folder:
        yield folder


async def told(archive: Archive) -> Told:
    """Return what an archive says of the past of the ledger."""
    entries = await archive.entries(1, limit=10_000)
    sampled = entries[10::40]
    ids = {entry.id: None for entry in sampled if entry.reservation}
    return (
        [await at_sequence(Past(archive), SKUS, entry.sequence) for entry in sampled]
        + [await at_time(Past(archive), SKUS, entry.time_ms + 1_500) for entry in sampled],
        [await explain(Past(archive), SKUS[0], entry.sequence) for entry in sampled],
        [each for id_ in ids for each in await decisions_of(Past(archive), id_)],
        await decide_again(archive),
    )


async def test_every_database_tells_the_same_of_the_past(
    sqlite: Archive, postgresql: Archive
) -> None:
    moments, explanations, decisions, again = await told(sqlite)
    assert (moments, explanations, decisions, again) == await told(postgresql)
    assert again.digest == again.kept
    assert not again.differences
    assert decisions
    assert all(decision.is_reproduced for decision in decisions)
