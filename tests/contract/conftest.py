"""Servers that the tests of one module share: each test keeps to SKUs and ids of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.contract.requests import MINE, OTHER_SKU, SKU, THEIRS, TTL_MAX_S, reserve
from tests.serving import Serving, lines, metadata, new_cell, seconds, serving

STORES = ["embedded valkey", "redis by url"]


def _settings(request: pytest.FixtureRequest, data: Path) -> dict[str, Any]:
    if request.param == "embedded valkey":
        return {"data": str(data), "durability": "memory"}
    return {"redis_url": request.getfixturevalue("redis_process"), "cell": new_cell()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A server on an embedded Valkey."""
    async with serving(data=str(tmp_path_factory.mktemp("data")), durability="memory") as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(embedded: Serving) -> Serving:
    """A server with two items and two holds, which stay as they are."""
    for sku in (SKU, OTHER_SKU):
        await embedded.put(100, sku=sku)
    for name, principal in ((MINE, "anonymous"), (THEIRS, "somebody")):
        request = reserve(reservation_id=name, lines=lines((SKU, 5)), ttl=seconds(TTL_MAX_S))
        await embedded.stock.Reserve(request, metadata=metadata(principal))
    return embedded


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Settings of a server on each kind of store, where nothing has been stored yet."""
    return _settings(request, tmp_path)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=STORES)
async def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Serving]:
    """A server on each kind of store in turn."""
    async with serving(**_settings(request, tmp_path_factory.mktemp("data"))) as running:
        yield running
