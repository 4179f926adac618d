"""What heeding the advice means here: a pacing for the agents' clients that counts what it does."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from holdfast import Attempt, Pacing, Plan, StockLevel
from holdfast_server.demo.shop import Customer, Shop
from holdfast_server.demo.tally import PACED_S, Tally

WAIT_S_MAX = 1.0  # about how long a hold of this demo lives
CUSTOMER: ContextVar[Customer] = ContextVar("customer")  # whose reserve this task makes


@dataclass(frozen=True)
class Heeding:
    """Waits when told to, and takes something else for a customer who would; asks no less."""

    shop: Shop
    tally: Tally

    def plan(self, attempt: Attempt) -> Plan:
        """Follow the advice as this customer can."""
        customer = CUSTOMER.get()

        def another(_sku: str, _level: StockLevel) -> str | None:
            found = self.shop.another(customer.rng, attempt.levels)
            return found if customer.is_flexible else None

        plan = Pacing(delay_max=WAIT_S_MAX, alternative=another).plan(attempt)
        self.tally.counts["waited"] += plan.delay > 0
        self.tally.counts["redirected"] += plan.lines != attempt.lines
        PACED_S.set(plan.delay)
        return plan
