"""What is for sale, and who comes for it: the same customers in the same order, every race."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from random import Random
from typing import NamedTuple

from holdfast import Advice, Line, StockLevel
from holdfast_server.catalogue import CatalogueItem

HOT_SKU = "CON-LCH-AUR"  # of the sample catalogue: what everybody wants today
SCARCE_UNITS = 5
HOT, SCARCE, ORDINARY = 150, 10, 3  # how likely a customer wants an item
TTL_S = (1.0, 2.0)
THINKING_S, PAYING_S = (0.02, 0.2), (0.03, 0.3)
FLEXIBLE = 0.6  # share of customers who would take another item as well
LOOKS_MAX = 10

# How a hold ends, and how often.
ENDINGS = {"paid": 70, "payment_failed": 12, "changed_mind": 6, "died": 7, "paid_late": 5}


class Customer(NamedTuple):
    """What one session is about.  All dice have been rolled before it begins."""

    basket: tuple[Line, ...]
    is_flexible: bool
    thinking_s: float
    ttl_s: float
    ending: str
    paying_s: float
    rng: Random  # for what to take instead


class Shop:
    """A catalogue as customers see it: what they want, and how much."""

    def __init__(self, items: Sequence[CatalogueItem], seed: int = 1) -> None:
        # The first is wanted most by its stock, so it is sold out first.
        self.items = sorted(items, key=lambda item: _units(item) / _weight(item))
        self._seed = seed
        self._skus = [item.sku for item in self.items]
        self._cumulative = list(accumulate(map(_weight, self.items)))

    def customer(self, number: int) -> Customer:
        """Return the customer of a number, who wants 1 to 3 lines of 1 or 2 units."""
        rng = Random(f"{self._seed}/{number}")
        count = rng.choices((1, 2, 3), (6, 3, 1))[0]
        skus = dict.fromkeys(rng.choices(self._skus, cum_weights=self._cumulative, k=count))
        return Customer(
            basket=tuple(Line(sku, rng.choices((1, 2), (4, 1))[0]) for sku in skus),
            is_flexible=rng.random() < FLEXIBLE,
            thinking_s=rng.uniform(*THINKING_S),
            ttl_s=rng.uniform(*TTL_S),
            ending=rng.choices(list(ENDINGS), list(ENDINGS.values()))[0],
            paying_s=rng.uniform(*PAYING_S),
            rng=rng,
        )

    def another(self, rng: Random, levels: Mapping[str, StockLevel]) -> str:
        """Return any item, preferably one that no known level advises against."""
        for _ in range(LOOKS_MAX):
            sku = rng.choice(self._skus)
            level = levels.get(sku)
            if level is None or level.advice is Advice.PROCEED:
                break
        return sku


def _units(item: CatalogueItem) -> int:
    return sum(item.stock.values())


def _weight(item: CatalogueItem) -> int:
    if item.sku == HOT_SKU:
        return HOT
    return SCARCE if _units(item) <= SCARCE_UNITS else ORDINARY
