"""What tests of faults share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast_server import app
from tests.archives import postgres_folder


@pytest.fixture
def postgres() -> Iterator[str]:
    """Folder of the socket of a PostgreSQL, to be damaged."""
    with postgres_folder() as folder:
        yield folder


@pytest.fixture
def no_sweeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave due holds to the operations that meet them."""

    async def sweep_never(*_args: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(app, "sweep_forever", sweep_never)
