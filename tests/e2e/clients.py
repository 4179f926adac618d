"""Every client of the SDK behind the asyncio one's surface, and what tests ask of them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any
from uuid import uuid4

from holdfast import AsyncClient, Client
from tests.unit.watched import ThreadedWatch


class Threaded:
    """A Client, or its Hold, whose methods run in threads: one suite then serves both clients."""

    def __init__(self, blocking: Any) -> None:
        self._blocking = blocking

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._blocking, name)
        if not callable(member):
            return member
        if name == "watch":
            return lambda *given, **options: ThreadedWatch(member(*given, **options))
        if name == "hold":
            return lambda *given, **options: Threaded(member(*given, **options))
        if inspect.isgeneratorfunction(member):
            return lambda *given, **options: _listed(lambda: [*member(*given, **options)])
        return lambda *given, **options: asyncio.to_thread(member, *given, **options)

    async def __aenter__(self) -> Threaded:
        await asyncio.to_thread(self._blocking.__enter__)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._blocking.__exit__, kind, error, traceback)


async def _listed(generate: Callable[[], list[Any]]) -> AsyncIterator[Any]:
    for one in await asyncio.to_thread(generate):
        yield one


CLIENTS: dict[str, Callable[..., Any]] = {
    "coalesced": AsyncClient,
    "alone": lambda *given, **options: AsyncClient(*given, coalesce=False, **options),
    "threaded": lambda *given, **options: Threaded(Client(*given, **options)),
}


def unique() -> str:
    return uuid4().hex[:16]


async def item(client: Any, units: int = 10, **policy: Any) -> str:
    """Make an item with some units in stock, and return its SKU."""
    sku = unique()
    await client.put_item(sku, **policy)
    if units:
        await client.adjust_stock(sku, units)
    return sku


async def held_of(client: Any, sku: str) -> int:
    (level,) = (await client.get_stock(sku)).levels
    return int(level.held)
