"""holdfast: the server itself, on the embedded Valkey with an fsync every second."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

from holdfast_bench.peers.terms import Sale
from holdfast_bench.stores import CALLER, check
from holdfast_server import logs
from holdfast_server.app import running
from holdfast_server.config import ServerConfig
from holdfast_server.engine.batcher import Batcher
from holdfast_server.errors import HoldfastError
from holdfast_server.model import AdjustStock, GetStock, Operation, PutItem

BATCH = 500


@asynccontextmanager
async def served(
    stock: Mapping[str, int],
) -> AsyncIterator[tuple[str, Callable[[], Awaitable[Mapping[str, Sale]]]]]:
    """Serve with a catalogue on sale; yield where, and what tells the units sold and held."""
    logs.configure(level="error", style="console")
    with tempfile.TemporaryDirectory(prefix="hf-") as folder:
        # The others keep no archive either.
        config = ServerConfig(listen="127.0.0.1:0", data=folder, archive="off")
        async with running(config) as server:
            await _put_on_sale(server.batcher, stock)

            async def sales() -> Mapping[str, Sale]:
                return await _sales(server.batcher, list(stock))

            yield server.target, sales


async def _put_on_sale(batcher: Batcher, stock: Mapping[str, int]) -> None:
    for part in _parts(list(stock)):
        put: list[Operation] = [PutItem(f"put-{sku}", CALLER, sku) for sku in part]
        delivered: list[Operation] = [
            AdjustStock(f"in-{sku}", CALLER, sku, stock[sku]) for sku in part if stock[sku]
        ]
        for operations in (put, delivered):
            for answer in await asyncio.gather(*map(batcher.execute, operations)):
                check(answer)


async def _sales(batcher: Batcher, skus: Sequence[str]) -> Mapping[str, Sale]:
    sales = {}
    for part in _parts(skus):
        answer = await batcher.execute(GetStock(tuple(part)))
        if isinstance(answer, HoldfastError):
            raise answer
        for level in answer.levels:
            assert level
            sales[level.sku] = Sale(level.committed, level.held)
    return sales


def _parts(skus: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(skus), BATCH):
        yield skus[first : first + BATCH]
