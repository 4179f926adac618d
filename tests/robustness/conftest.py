"""What tests of faults share."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast_server import app


@pytest.fixture
def no_sweeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave due holds to the operations that meet them."""

    async def sweep_never(*_args: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(app, "sweep_forever", sweep_never)
