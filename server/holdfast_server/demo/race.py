"""Races from start to verdict: serve, import, shop, wait for the last holds, check."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from itertools import count
from tempfile import TemporaryDirectory
from typing import Protocol

from holdfast import AsyncClient, ItemEntry
from holdfast_server import catalogue
from holdfast_server.app import running
from holdfast_server.catalogue import Catalogue
from holdfast_server.checks import Verdict, check_server
from holdfast_server.checks.verdict import VIOLATIONS_MAX
from holdfast_server.config import ServerConfig
from holdfast_server.demo.agents import Agent
from holdfast_server.demo.heeding import Heeding
from holdfast_server.demo.shop import TTL_S, Shop
from holdfast_server.demo.tally import Tally

CLIENTS = 4
LAST_HOLDS_S_MAX = TTL_S[1] + 10.0
POLL_S = 0.1
TIMEOUT_S = 10.0  # of one call: the race shares its processor with the server
WATCH_INTERVAL_S = 0.1
PACINGS = {"off": ("off",), "on": ("on",), "both": ("off", "on")}


@dataclass(frozen=True)
class Race:
    """How long, how many, which dice, and whether the advice is ignored, heeded, or first the one.

    Of both races the second serves the same customers as the first, however long that takes.
    """

    seconds: float = 8.0
    agents: int = 300
    seed: int = 1
    pacing: str = "both"


@dataclass
class Heat:
    """One race; without a number of customers its agents begin new sessions for `seconds`."""

    race: Race
    pacing: str
    shop: Shop
    customers: int | None
    tally: Tally

    @property
    def is_paced(self) -> bool:
        """Tell whether the agents heed the advice."""
        return self.pacing == "on"

    @property
    def agents(self) -> str:
        """Say who races."""
        return f"{self.race.agents} agents that {'heed' if self.is_paced else 'ignore'} the advice"

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the customers, for all agents."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.race.seconds
        for number in count(1):
            if loop.time() >= deadline if self.customers is None else number > self.customers:
                return
            yield number


@dataclass(frozen=True)
class Result:
    """What came of a race."""

    pacing: str
    tally: Tally
    shopping_s: float
    verdicts: list[Verdict]

    @property
    def holds(self) -> bool:
        """Tell whether every promise was kept."""
        return all(verdict.holds for verdict in self.verdicts)


class Screen(Protocol):
    """Whatever shows how a race goes."""

    def note(self, text: str) -> None:
        """Say that a new part of the race begins."""
        ...

    async def follow(self, heat: Heat, client: AsyncClient) -> None:
        """Show the race until cancelled; the client's levels are live."""
        ...


async def run(race: Race, screen: Screen) -> list[Result]:
    """Run each race on a server of its own.  Raises what a server and its clients raise."""
    sample = files("holdfast_server").joinpath("samples", "catalogue.csv")
    parsed = catalogue.parse(sample.read_bytes())
    shop = Shop(list(parsed.items.values()), race.seed)
    results: list[Result] = []
    for pacing in PACINGS[race.pacing]:
        customers = results[0].tally.counts["sessions"] if results else None
        heat = Heat(race, pacing, shop, customers, Tally())
        results.append(await _run(heat, parsed, screen))
    return results


async def _run(heat: Heat, parsed: Catalogue, screen: Screen) -> Result:
    tally, served = heat.tally, f"shop for {heat.race.seconds:g} s"
    if heat.customers is not None:
        served = f"serve the same {heat.customers} customers"
    async with _serving() as target, _clients(target) as (observer, *clients):
        await _import(observer, parsed, screen)
        screen.note(f"{heat.agents} {served}")
        async with _followed(screen, heat, observer, *(clients if heat.is_paced else ())):
            await _shop(heat, clients)
        shopping_s = time.perf_counter() - tally.started
        screen.note("waiting for the last holds to end by themselves")
        items = await _last_holds(observer)
        screen.note(
            f"checking every promise against {len(tally.acknowledged)} acknowledged answers"
        )
        verdicts = await check_server(observer, tally.acknowledged)
    return Result(heat.pacing, tally, shopping_s, [*verdicts, _books(items, tally)])


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
async def _followed(screen: Screen, heat: Heat, *watching: AsyncClient) -> AsyncIterator[None]:
    """Show a race, and keep the levels of some clients live, the first of them for the screen."""
    heat.tally.started = time.perf_counter()
    works = [screen.follow(heat, watching[0]), *map(_keep_live, watching)]
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep_live(client: AsyncClient) -> None:
    async with client.watch(min_interval=WATCH_INTERVAL_S) as watch:
        async for _change in watch:
            pass  # the levels have it


async def _shop(heat: Heat, clients: Sequence[AsyncClient]) -> None:
    numbers = heat.numbers()
    for client in clients:
        client.pacing = Heeding(heat.shop, heat.tally) if heat.is_paced else None
    async with asyncio.TaskGroup() as group:
        for number in range(heat.race.agents):
            client = clients[number % len(clients)]
            agent = Agent(f"agent-{number}", client, heat.shop, heat.tally)
            group.create_task(agent.serve(numbers))


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
