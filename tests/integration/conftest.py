"""Archives on each database, for the tests of what is kept for good."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from holdfast_server.ledger.archive import Archive
from tests.archives import new_database, postgres_folder, sqlite_url


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Folder of the socket of a PostgreSQL."""
    with postgres_folder() as folder:
        yield folder


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path, postgres: str) -> str:
    """URL of a new archive, on each database in turn."""
    return sqlite_url(tmp_path) if request.param == "sqlite" else await new_database(postgres)


@pytest_asyncio.fixture
async def archive(url: str) -> AsyncIterator[Archive]:
    """A new archive, on each database in turn."""
    async with Archive.open(url) as opened:
        yield opened
