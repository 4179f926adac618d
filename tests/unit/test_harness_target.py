"""What the harness says to a target that is none, and to a system that allows too little."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import pytest

from holdfast import AsyncClient
from holdfast_bench.harness import limits, target
from holdfast_bench.harness.faults import LimitTooLow, TargetUnusable

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[str]:
    """Run a TCP server that is no gRPC server."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def saying(words: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(words)
        await writer.drain()

    return talk


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1"),
        (b"-ERR unknown command\r\n", "not HTTP/2"),
        (b"", "closed"),
    ],
)
async def test_a_server_of_another_protocol_is_named(words: bytes, complaint: str) -> None:
    async with listening(saying(words)) as where:
        with pytest.raises(TargetUnusable, match=complaint):
            await target.probe(where)


async def test_a_server_that_says_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    monkeypatch.setattr(target, "PROBE_S_MAX", 0.2)
    async with listening(wait) as where:
        with pytest.raises(TargetUnusable, match="says nothing"):
            await target.probe(where)


async def test_a_port_that_nobody_listens_on_is_named() -> None:
    async with listening(saying(b"")) as where:
        pass
    with pytest.raises(TargetUnusable, match="cannot connect"):
        await target.probe(where)


async def test_a_grpc_server_without_stock_is_named() -> None:
    server = grpc.aio.server()
    where = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        await target.probe(where)
        async with AsyncClient(where) as client:
            with pytest.raises(TargetUnusable, match=r"no holdfast\.v1\.StockService"):
                await target.has_ledger(client)
    finally:
        await server.stop(0)


@pytest.mark.parametrize("text", ["", "host", "host:", ":7420", "host:http", "host:0", "h:65536"])
def test_a_target_is_host_and_port(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        target.address(text)


def test_an_ipv6_address_has_brackets() -> None:
    assert target.address("[::1]:7420") == ("::1", 7420)


@pytest.fixture
def limit_is(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], list[tuple[int, int]]]:
    """Pretend a soft and a hard limit of descriptors; return what is set instead."""

    def pretend(soft: int, hard: int) -> list[tuple[int, int]]:
        raised: list[tuple[int, int]] = []
        monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda _which, pair: raised.append(pair))
        return raised

    return pretend


def test_too_few_descriptors_are_said_before_the_run(limit_is: Callable[..., object]) -> None:
    limit_is(1024, 4096)
    with pytest.raises(LimitTooLow, match=r"needs 10256 for 10000 connections.*\(ulimit -Hn\)"):
        limits.allow(10_000, 1, is_embedded=True)


def test_the_soft_limit_is_raised_as_far_as_needed(limit_is: Callable[..., object]) -> None:
    raised = limit_is(1024, 20_000)
    limits.allow(10_000, 1, is_embedded=True)
    assert raised == [(10_256, 20_000)]


def test_processes_share_the_connections(limit_is: Callable[..., object]) -> None:
    raised = limit_is(1024, 6_000)
    limits.allow(10_000, 2, is_embedded=False)
    assert raised == [(5_256, 6_000)]


def test_too_few_ports_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_ports", lambda: 500)
    with pytest.raises(LimitTooLow, match="ip_local_port_range leaves 500"):
        limits.allow(501, 1, is_embedded=False)
