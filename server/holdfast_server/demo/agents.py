"""Agents that shop: they look, think, reserve, and then pay, fail to, or are never seen again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast import (
    AsyncClient,
    Context,
    HoldfastError,
    Line,
    OutOfStock,
    Reservation,
    ReservationExpired,
)
from holdfast.v1 import ledger_pb2
from holdfast_server.demo.heeding import CUSTOMER
from holdfast_server.demo.shop import Customer, Shop
from holdfast_server.demo.tally import Tally

LATE_S = 0.2


@dataclass
class Agent:
    """One agent, customer after customer.

    It looks at what its customer wants, and asks for it, whatever it saw.  What it was refused it
    replaces once by something else, if the customer would take that.  Only the pacing of its
    client heeds advice.
    """

    name: str
    client: AsyncClient
    shop: Shop
    tally: Tally

    async def serve(self, numbers: Iterator[int]) -> None:
        """Serve customers by number, which the agents share, until there are no more."""
        counts = self.tally.counts
        for number in numbers:
            customer = self.shop.customer(number)
            CUSTOMER.set(customer)
            counts["sessions"] += 1
            try:
                await self._session(customer, Context(self.name, f"session-{number}", "demo"))
            except HoldfastError as error:
                counts["errors"] += 1
                counts[f"error_{error.reason or type(error).__name__}"] += 1

    async def _session(self, customer: Customer, context: Context) -> None:
        basket = customer.basket
        await self.tally.timed(self.client.get_stock([line.sku for line in basket]))
        await asyncio.sleep(customer.thinking_s)
        try:
            held = await self._reserve(basket, customer, context)
        except OutOfStock as refused:
            if not customer.is_flexible:
                return
            self.tally.counts["tried_another"] += 1
            try:
                held = await self._reserve(self._other(customer, refused), customer, context)
            except OutOfStock:
                return
        await self._end(held, customer)

    async def _reserve(
        self, basket: tuple[Line, ...], customer: Customer, context: Context
    ) -> Reservation:
        """Hold a basket.  Raises OutOfStock."""
        counts = self.tally.counts
        try:
            reserving = self.client.reserve(basket, ttl=customer.ttl_s, context=context)
            held = (await self.tally.timed(reserving)).reservation
        except OutOfStock:
            counts["refusals"] += 1
            raise
        counts["holds"] += 1
        self.tally.told(ledger_pb2.ENTRY_KIND_RESERVE, held)
        return held

    def _other(self, customer: Customer, refused: OutOfStock) -> tuple[Line, ...]:
        """Return what was wanted with something else in place of what was refused."""
        gone = {line.sku for line in refused.lines}
        levels = self.client.levels if self.client.pacing else {}
        return tuple(
            line._replace(sku=self.shop.another(customer.rng, levels)) if line.sku in gone else line
            for line in customer.basket
        )

    async def _end(self, held: Reservation, customer: Customer) -> None:
        counts, ending = self.tally.counts, customer.ending
        units = sum(line.quantity for line in held.lines)
        pause_s = customer.ttl_s + LATE_S if ending == "paid_late" else customer.paying_s
        await asyncio.sleep(pause_s)
        counts[ending] += 1
        if ending == "died":
            counts["units_back"] += units
        elif ending in ("payment_failed", "changed_mind"):
            await self._release(held, units)
        else:
            await self._commit(held, units)

    async def _release(self, held: Reservation, units: int) -> None:
        tally = self.tally
        answer = await tally.timed(self.client.release(held.reservation_id))
        tally.told(ledger_pb2.ENTRY_KIND_RELEASE, answer.reservation)
        tally.counts["units_back"] += units

    async def _commit(self, held: Reservation, units: int) -> None:
        tally, order = self.tally, f"order-{held.reservation_id[:8]}"
        try:
            selling = self.client.commit(held.reservation_id, order_ref=order)
            answer = await tally.timed(selling)
        except ReservationExpired:
            tally.counts["units_back"] += units
            return
        tally.told(ledger_pb2.ENTRY_KIND_COMMIT, answer.reservation)
        tally.counts["units_sold"] += units
        tally.counts["orders"] += 1
