"""One race from start to verdict: serve, import, shop, wait for the last holds, check."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from random import Random
from tempfile import TemporaryDirectory
from typing import Protocol

from holdfast import AsyncClient, ItemEntry
from holdfast_server import catalogue
from holdfast_server.app import running
from holdfast_server.catalogue import Catalogue
from holdfast_server.checks import Verdict, check_server
from holdfast_server.checks.verdict import VIOLATIONS_MAX
from holdfast_server.config import ServerConfig
from holdfast_server.demo.agents import TTL_S, Agent, Heeding, Shop
from holdfast_server.demo.tally import Tally

CLIENTS = 4
LAST_HOLDS_S_MAX = TTL_S[1] + 10.0
POLL_S = 0.1
TIMEOUT_S = 10.0  # of one call: the race shares its processor with the server


@dataclass(frozen=True)
class Race:
    """How long, how many, and which dice."""

    seconds: float = 20.0
    agents: int = 300
    seed: int = 1


@dataclass(frozen=True)
class Result:
    """What came of a race."""

    race: Race
    tally: Tally
    shopping_s: float
    items: Sequence[ItemEntry]
    verdicts: list[Verdict]

    @property
    def holds(self) -> bool:
        """Tell whether every promise was kept."""
        return all(verdict.holds for verdict in self.verdicts)


class Screen(Protocol):
    """Whatever shows how the race goes."""

    def note(self, text: str) -> None:
        """Say that a new part of the race begins."""
        ...

    async def follow(self, race: Race, tally: Tally, client: AsyncClient) -> None:
        """Show the race until cancelled."""
        ...


async def run(race: Race, screen: Screen) -> Result:
    """Run a race on a server of its own.  Raises what the server and its client raise."""
    sample = files("holdfast_server").joinpath("samples", "catalogue.csv")
    parsed = catalogue.parse(sample.read_bytes())
    async with _serving() as target, _clients(target) as (observer, *clients):
        await _import(observer, parsed, screen)
        tally = Tally()
        shop = Shop.of(list(parsed.items.values()), tally)
        for client in clients:
            client.pacing = Heeding(shop, Random(f"{race.seed}/pacing"))
        screen.note(f"{race.agents} agents shop for {race.seconds:g} s, on {CLIENTS} clients")
        await _shop(race, shop, clients, _followed(screen, race, tally, observer))
        shopping_s = time.perf_counter() - tally.started
        screen.note("waiting for the last holds to end by themselves")
        items = await _last_holds(observer)
        screen.note(
            f"checking every promise against {len(tally.acknowledged)} acknowledged answers"
        )
        verdicts = await check_server(observer, tally.acknowledged)
        return Result(race, tally, shopping_s, items, [*verdicts, _books(items, tally)])


@asynccontextmanager
async def _serving() -> AsyncIterator[str]:
    with TemporaryDirectory(prefix="holdfast-demo-") as data:
        async with running(ServerConfig(listen="127.0.0.1:0", data=data)) as server:
            yield server.target


@asynccontextmanager
async def _clients(target: str) -> AsyncIterator[list[AsyncClient]]:
    """Connect the observer and the clients that the agents share."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                AsyncClient(target, principal=f"runtime-{number}", timeout=TIMEOUT_S)
            )
            for number in range(CLIENTS + 1)
        ]


async def _import(client: AsyncClient, parsed: Catalogue, screen: Screen) -> None:
    loaded = await client.import_items(catalogue.to_rows(parsed))
    units = sum(sum(item.stock.values()) for item in parsed.items.values())
    screen.note(f"imported {loaded.imported} items, {units} units, from {parsed.rows} rows")


@asynccontextmanager
async def _followed(
    screen: Screen, race: Race, tally: Tally, client: AsyncClient
) -> AsyncIterator[None]:
    following = asyncio.create_task(screen.follow(race, tally, client))
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _shop(
    race: Race,
    shop: Shop,
    clients: Sequence[AsyncClient],
    followed: AbstractAsyncContextManager[None],
) -> None:
    deadline = asyncio.get_running_loop().time() + race.seconds
    async with followed, asyncio.TaskGroup() as group:
        for number in range(race.agents):
            rng = Random(f"{race.seed}/{number}")
            agent = Agent(f"agent-{number}", clients[number % len(clients)], shop, rng)
            group.create_task(agent.shop_until(deadline))


async def _last_holds(client: AsyncClient) -> list[ItemEntry]:
    """Return all items as soon as nothing is held any more, or when that has taken too long."""
    deadline = time.monotonic() + LAST_HOLDS_S_MAX
    while True:
        items = [entry async for entry in client.list_items(page_size=1_000)]
        if not any(entry.level.held for entry in items) or time.monotonic() > deadline:
            return items
        await asyncio.sleep(POLL_S)


def _books(items: Sequence[ItemEntry], tally: Tally) -> Verdict:
    """Judge that nothing is held any more, and that what was sold is what the agents bought."""
    levels = [entry.level for entry in items]
    wrong = [f"{level.held} units of {level.sku} held" for level in levels if level.held]
    committed, bought = sum(level.committed for level in levels), tally.counts["units_sold"]
    # A commit whose answer was lost may have been a sale.
    if committed < bought or (committed > bought and not tally.counts["errors"]):
        wrong.append(f"{committed} units committed, {bought} bought")
    return Verdict("books_balance", not wrong, len(items), wrong[:VIOLATIONS_MAX])
