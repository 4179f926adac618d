"""The SDK when servers are away, closed to it, or lose its answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from holdfast import (
    ClientClosed,
    HoldBudgetExceeded,
    NotOwner,
    OutOfStock,
    RetryPolicy,
    Unauthenticated,
    Unreachable,
)
from tests.e2e.clients import held_of, item
from tests.serving import Serving, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_last_unit_goes_to_one_caller(client: Any) -> None:
    sku = await item(client, 1)
    calls = [client.reserve(sku) for _ in range(40)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [one for one in answers if isinstance(one, OutOfStock)]
    assert len(refused) == len(answers) - 1
    assert (await client.get_stock(sku)).levels[0].held == 1


async def test_a_server_that_is_not_there_is_unreachable(new_client: Callable[..., Any]) -> None:
    absent = new_client("127.0.0.1:1", connect_timeout=0.2, retry=None)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        await absent.__aenter__()
    async with new_client("127.0.0.1:1", lazy=True, retry=None, timeout=30.0) as client:
        with pytest.raises(Unreachable):
            await client.reserve("A")


async def test_a_closed_client_makes_no_calls(
    server: Serving, new_client: Callable[..., Any]
) -> None:
    async with new_client(server.target) as client:
        await client.get_stock("A")
    for call in (client.get_stock("A"), client.get_head()):
        with pytest.raises(ClientClosed):
            await call


async def test_the_stubs_are_within_reach(client: Any) -> None:
    assert client.stubs is client.stubs
    assert client.metadata == (("holdfast-principal", "me"),)
    assert client.stubs.stock.Watch is not None


@asynccontextmanager
async def guarded(data: Path) -> AsyncIterator[Serving]:
    """Serve to an agent and a connector, whose tokens are their names."""
    principals = data / "principals.toml"
    with principals.open("w") as file:
        for role in ("agent", "connector"):
            digest = sha256(role.encode()).hexdigest()
            file.write(f'[principals.{role}]\ntoken_sha256 = "{digest}"\nrole = "{role}"\n')
    options = {"principals": str(principals), "data": str(data / "store")}
    async with serving(durability="memory", **options) as running:
        yield running


async def test_a_token_says_who_calls(new_client: Callable[..., Any], tmp_path: Path) -> None:
    async with guarded(tmp_path) as server:
        async with new_client(server.target, token="connector") as connector:
            sku = await item(connector)
            # A connector may read stock, but open no Pipeline.
            assert (await connector.get_stock(sku)).levels[0].available == 10
            with pytest.raises(NotOwner):
                await connector.reserve(sku)
        async with new_client(server.target, token="agent") as agent:
            assert (await agent.reserve(sku)).reservation.principal == "agent"
        async with new_client(server.target, token="guessed") as stranger:
            with pytest.raises(Unauthenticated):
                await stranger.reserve(sku)


async def test_a_principal_holds_within_its_budget(
    new_client: Callable[..., Any], tmp_path: Path
) -> None:
    settings = {"hold_budget": 5, "data": str(tmp_path), "durability": "memory"}
    async with serving(**settings) as server, new_client(server.target) as client:
        sku = await item(client)
        await client.reserve([(sku, 3)])
        with pytest.raises(HoldBudgetExceeded) as caught:
            await client.reserve([(sku, 3)])
        assert caught.value.lines[0].available == 2


class Cutter:
    """Passes bytes on to a server, and when told to loses answers and cuts every connection."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._writers: set[asyncio.StreamWriter] = set()
        self.cuts_left = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, far_writer}
        calls = self._pass_on(reader, far_writer, are_answers=False)
        await asyncio.gather(calls, self._pass_on(far_reader, writer, are_answers=True))

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, are_answers: bool
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if are_answers and self.cuts_left:
                    self.cuts_left -= 1
                    self.cut()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def cutting(target: str) -> AsyncIterator[tuple[Cutter, str]]:
    cutter = Cutter(target)
    listener = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    try:
        yield cutter, f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        cutter.cut()
        await listener.wait_closed()


# One cut fails all calls that are under way: without frames that are many failures at once.
PATIENT = RetryPolicy(tokens_max=100)


async def test_each_reserve_counts_once_although_its_answer_was_lost(
    server: Serving, new_client: Callable[..., Any]
) -> None:
    options = {"timeout": 20.0, "retry": PATIENT}
    async with cutting(server.target) as (cutter, target), new_client(target, **options) as client:
        sku = await item(client, 1_000)
        ids: list[str] = []

        async def buy() -> None:
            for _ in range(5):
                answer = await client.reserve(sku, ttl=60)
                ids.append(answer.reservation.reservation_id)
                if len(ids) in {10, 40}:
                    cutter.cuts_left = 1

        await asyncio.gather(*(buy() for _ in range(16)))
        assert cutter.cuts_left == 0
        assert len(set(ids)) == 80
        assert await held_of(client, sku) == 80
