"""Agents that claim, sell and give back stock through everything that goes wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import grpc

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import ledger_pb2 as ledger
from holdfast.v1 import stock_pb2 as stock
from holdfast_server.checks import (
    Acknowledged,
    acknowledged_found,
    exactly_one_end,
    ledger_gapless,
    never_oversold,
    replay_equals_state,
)
from tests.serving import (
    COMMITTED,
    HELD,
    RELEASED,
    Client,
    failure_of_error,
    lines,
    seconds,
    unique,
)

RETRY_PAUSE_S = 0.02
ABANDONED_S, KEPT_S = 0.3, 30.0
_UNANSWERED = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}


class Load:
    """What agents did and were told.

    Each agent reserves and then commits, releases or leaves the hold to expire, and repeats a
    call with the same id until it is answered, whatever happens in between.
    """

    def __init__(self, clients: Sequence[Client], skus: Sequence[str]) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.failures: Counter[str] = Counter()
        self._clients = clients
        self._skus = skus
        self._stopping = asyncio.Event()
        self._acting = 0
        self._progress = asyncio.Condition()

    async def after(self, count: int) -> None:
        """Wait until that many more operations have been acknowledged."""
        wanted = len(self.acknowledged) + count
        async with self._progress:
            await self._progress.wait_for(lambda: len(self.acknowledged) >= wanted)

    async def agent(self, number: int) -> None:
        """Act until the load is to stop, then end what was begun."""
        random, client = Random(number), self._clients[number % len(self._clients)]
        self._acting += 1
        while not self._stopping.is_set():
            await self._claim(client, random)
        async with self._progress:
            self._acting -= 1
            self._progress.notify_all()

    async def _claim(self, client: Client, random: Random) -> None:
        """Reserve, and then sell it, give it back, or let it expire."""
        name, fate = unique(), random.random()
        ttl = ABANDONED_S if fate > 0.9 else KEPT_S
        if not await self._reserve(client, name, random, ttl):
            await asyncio.sleep(RETRY_PAUSE_S)  # as the refusal asks
        elif fate < 0.05:
            await self._commit(client, name)
        elif fate < 0.9:
            await self._release(client, name)

    async def _reserve(self, client: Client, name: str, random: Random, ttl: float) -> bool:
        wanted = {sku: random.randint(1, 3) for sku in random.sample(self._skus, 2)}
        request = stock.ReserveRequest(
            reservation_id=name, lines=lines(*wanted.items()), ttl=seconds(ttl)
        )
        answer = await self._answered(client.stock.Reserve, request)
        held = answer.reservation
        if answer.HasField("reservation") and held.state == HELD:
            await self._told(ledger.ENTRY_KIND_RESERVE, name, held.sequence, tuple(wanted.items()))
            return True
        return False

    async def _commit(self, client: Client, name: str) -> None:
        answer = await self._answered(client.stock.Commit, stock.CommitRequest(reservation_id=name))
        if answer is not None and answer.reservation.state == COMMITTED:
            await self._told(ledger.ENTRY_KIND_COMMIT, name, answer.reservation.sequence)

    async def _release(self, client: Client, name: str) -> None:
        request = stock.ReleaseRequest(reservation_id=name)
        answer = await self._answered(client.stock.Release, request)
        if answer is not None and answer.reservation.state == RELEASED:
            await self._told(ledger.ENTRY_KIND_RELEASE, name, answer.reservation.sequence)

    async def _told(
        self, kind: int, name: str, sequence: int, units: tuple[tuple[str, int], ...] = ()
    ) -> None:
        self.acknowledged.append(Acknowledged(kind, name, sequence, units))
        async with self._progress:
            self._progress.notify_all()

    async def _answered(self, rpc: Callable[..., Awaitable[Any]], request: Any) -> Any:
        """Call until there is an answer; None if it is that the hold has expired."""
        while True:
            try:
                return await rpc(request, timeout=10)
            except grpc.aio.AioRpcError as error:
                said = failure_of_error(error)
                if said.reason == "RESERVATION_EXPIRED":
                    return None
                if error.code() not in _UNANSWERED:
                    raise
                self.failures[said.reason] += 1
            await asyncio.sleep(RETRY_PAUSE_S)

    async def finish(self) -> None:
        """Have every agent end what it began, and none begin anew."""
        self._stopping.set()
        async with self._progress:
            await self._progress.wait_for(lambda: not self._acting)


@asynccontextmanager
async def under_load(
    *clients: Client, skus: Sequence[str], agents: int = 16
) -> AsyncIterator[Load]:
    """Keep agents busy during the block; they have finished when it is left."""
    load = Load(clients, skus)
    async with asyncio.TaskGroup() as group:
        for number in range(agents):
            group.create_task(load.agent(number))
        yield load
        await load.finish()


async def stocked(client: Client, count: int = 4, units: int = 300) -> list[str]:
    """Make items to be claimed."""
    return [await client.put(units) for _ in range(count)]


async def check_promises(client: Client, acknowledged: Sequence[Acknowledged] = ()) -> None:
    """Check every named invariant of a server that is at rest or in use."""
    head = (await client.head()).sequence
    items: list[inventory.ItemEntry] = []
    token = None
    while token != "":
        request = inventory.ListItemsRequest(page_token=token or "")
        page = await client.inventory.ListItems(request)
        items += page.entries
        token = page.next_page_token
    entries = await client.entries()
    for verdict in (
        never_oversold(entries),
        exactly_one_end(entries),
        ledger_gapless(entries, head=head),
        replay_equals_state(entries, items, head=head),
        acknowledged_found(entries, acknowledged),
    ):
        assert verdict.holds, verdict
