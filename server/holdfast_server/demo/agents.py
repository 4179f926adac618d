"""Agents that shop: they browse, think, reserve, and then pay, fail to, or are never seen again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from holdfast import (
    AsyncClient,
    Attempt,
    Context,
    HoldfastError,
    Line,
    OutOfStock,
    Pacing,
    Plan,
    Pressure,
    Reservation,
    ReservationExpired,
    StockLevel,
)
from holdfast.v1 import ledger_pb2
from holdfast_server.catalogue import CatalogueItem
from holdfast_server.demo.tally import PACED_S, Tally

HOT_SKU = "CON-LCH-AUR"  # of the sample catalogue: what everybody wants today
SCARCE_UNITS = 5
HOT, SCARCE, ORDINARY = 150, 10, 3  # how likely an agent wants an item
TTL_S = (1.0, 2.0)
THINKING_S, PAYING_S = (0.02, 0.2), (0.03, 0.3)
PATIENCE = 0.5  # share of agents that try although they saw that everything is sold out
LATE_S = 0.2
FLEXIBLE = 0.3  # share of agents that take another item when told that this one is scarce
PACED_S_MAX = 0.3

# How a hold ends, and how often.
ENDINGS = {"paid": 70, "payment_failed": 12, "changed_mind": 6, "died": 7, "paid_late": 5}


@dataclass(frozen=True)
class Shop:
    """A catalogue as agents see it: what they want, and how much."""

    skus: Sequence[str]
    cumulative: Sequence[int]
    tally: Tally

    @classmethod
    def of(cls, items: Sequence[CatalogueItem], tally: Tally) -> Shop:
        """Return the shop of a catalogue, in which the rarest items are wanted most."""
        weights = accumulate(map(_weight, items))
        return cls([item.sku for item in items], list(weights), tally)

    def basket(self, rng: Random) -> list[Line]:
        """Return 1 to 3 lines of 1 or 2 units."""
        count = rng.choices((1, 2, 3), (6, 3, 1))[0]
        skus = dict.fromkeys(rng.choices(self.skus, cum_weights=self.cumulative, k=count))
        return [Line(sku, rng.choices((1, 2), (4, 1))[0]) for sku in skus]


def _weight(item: CatalogueItem) -> int:
    if item.sku == HOT_SKU:
        return HOT
    return SCARCE if sum(item.stock.values()) <= SCARCE_UNITS else ORDINARY


@dataclass(frozen=True)
class Heeding:
    """The pacing of the agents' clients: it heeds advice, and counts how often."""

    shop: Shop
    rng: Random

    def plan(self, attempt: Attempt) -> Plan:
        """Slow down when told to; take another item now and then when one is scarce."""
        plan = Pacing(delay_max=PACED_S_MAX, alternative=self._another).plan(attempt)
        counts = self.shop.tally.counts
        counts["slowed_down"] += plan.delay > 0
        counts["took_another"] += plan.lines != attempt.lines
        PACED_S.set(plan.delay)
        return plan

    def _another(self, _sku: str, _level: StockLevel) -> str | None:
        return self.rng.choice(self.shop.skus) if self.rng.random() < FLEXIBLE else None


@dataclass
class Agent:
    """One agent, session after session."""

    name: str
    client: AsyncClient
    shop: Shop
    rng: Random

    async def shop_until(self, deadline: float) -> None:
        """Begin sessions until the event loop's clock has reached the deadline."""
        tally, loop, number = self.shop.tally, asyncio.get_running_loop(), 0
        await asyncio.sleep(self.rng.uniform(*THINKING_S))
        while loop.time() < deadline:
            number += 1
            tally.counts["sessions"] += 1
            try:
                await self._session(Context(self.name, f"{self.name}/{number}", "demo"))
            except HoldfastError as error:
                tally.counts["errors"] += 1
                tally.counts[f"error_{error.reason or type(error).__name__}"] += 1

    async def _session(self, context: Context) -> None:
        tally, rng, basket = self.shop.tally, self.rng, self.shop.basket(self.rng)
        stock = await tally.timed(self.client.get_stock([line.sku for line in basket]))
        await asyncio.sleep(rng.uniform(*THINKING_S))
        gone = all(level.pressure is Pressure.SOLD_OUT for level in stock.levels)
        if gone and rng.random() > PATIENCE:
            tally.counts["went_away"] += 1
            return
        ttl = rng.uniform(*TTL_S)
        try:
            reserving = self.client.reserve(basket, ttl=ttl, context=context)
            held = (await tally.timed(reserving)).reservation
        except OutOfStock:
            tally.counts["sold_out"] += 1
            return
        tally.counts["holds"] += 1
        tally.told(ledger_pb2.ENTRY_KIND_RESERVE, held)
        await self._end(held, ttl)

    async def _end(self, held: Reservation, ttl: float) -> None:
        rng, counts = self.rng, self.shop.tally.counts
        ending = rng.choices(list(ENDINGS), list(ENDINGS.values()))[0]
        units = sum(line.quantity for line in held.lines)
        await asyncio.sleep(ttl + LATE_S if ending == "paid_late" else rng.uniform(*PAYING_S))
        counts[ending] += 1
        if ending == "died":
            counts["units_back"] += units
        elif ending in ("payment_failed", "changed_mind"):
            await self._release(held, units)
        else:
            await self._commit(held, units)

    async def _release(self, held: Reservation, units: int) -> None:
        tally = self.shop.tally
        answer = await tally.timed(self.client.release(held.reservation_id))
        tally.told(ledger_pb2.ENTRY_KIND_RELEASE, answer.reservation)
        tally.counts["units_back"] += units

    async def _commit(self, held: Reservation, units: int) -> None:
        tally, order = self.shop.tally, f"order-{held.reservation_id[:8]}"
        try:
            selling = self.client.commit(held.reservation_id, order_ref=order)
            answer = await tally.timed(selling)
        except ReservationExpired:
            tally.counts["units_back"] += units
            return
        tally.told(ledger_pb2.ENTRY_KIND_COMMIT, answer.reservation)
        tally.counts["units_sold"] += units
        tally.counts["orders"] += 1
