"""A server, and each client of the SDK in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.clients import CLIENTS
from tests.serving import Serving, serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    async with serving(data=str(tmp_path_factory.mktemp("data")), durability="memory") as running:
        yield running


@pytest.fixture(params=CLIENTS)
def new_client(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return CLIENTS[request.param]


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: Serving, new_client: Callable[..., Any]) -> AsyncIterator[Any]:
    async with new_client(server.target, principal="me", timeout=10.0) as connected:
        yield connected
