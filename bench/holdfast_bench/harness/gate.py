"""Whether the target kept its promises: no figure of a server that oversold is worth reading.

Every named check of holdfast_server.checks over the target's ledger, and two by what the agents of
the run were told, of which the first needs no ledger:

    agents_not_oversold     no item was sold to agents beyond the units on sale
    books_balance           what the target says it has sold is what the agents bought
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast import AsyncClient, StockLevel
from holdfast_bench.harness.session import reservation_id
from holdfast_server.checks import Acknowledged, Verdict, check_server

VIOLATIONS_MAX = 20
PAGE_SIZE = 500
CALL_S_MAX = 30.0


@dataclass(frozen=True)
class Sold:
    """What the agents of a run were told, by SKU.

    `unknown` are the units of commits without an answer: each may have been a sale.
    """

    skus: Sequence[str]
    units_each: int
    bought: Mapping[str, int]
    unknown: Mapping[str, int] = field(default_factory=dict)
    acknowledged: Sequence[Acknowledged] = ()


class Units(NamedTuple):
    """Units over all items of a run."""

    on_sale: int
    sold: int
    oversold: int
    held: int


def acknowledged_of(run_id: str, told: Iterable[str]) -> list[Acknowledged]:
    """Return what processes were told, from triples of session, kind of entry and sequence."""
    found = []
    for encoded in told:
        numbers = array("q", base64.b64decode(encoded))
        for number, kind, sequence in zip(*[iter(numbers)] * 3, strict=True):
            found.append(Acknowledged(kind, reservation_id(run_id, number), sequence))
    return found


async def judge(
    client: AsyncClient, sold: Sold, *, has_ledger: bool
) -> tuple[list[Verdict], Units]:
    """Return the verdicts over a target, and where the units went.

    Raises holdfast.HoldfastError when the target cannot be read.
    """
    if not has_ledger:
        verdict = agents_not_oversold(sold)
        return [verdict], units_of(sold, {})
    levels = await _levels(client, sold.skus)
    checked = await check_server(client, sold.acknowledged)
    verdicts = [*checked, agents_not_oversold(sold), books_balance(sold, levels)]
    return verdicts, units_of(sold, levels)


def agents_not_oversold(sold: Sold) -> Verdict:
    """Check that no item was sold beyond the units on sale."""
    wrong = [
        f"{sku}: {bought} units sold, {sold.units_each} on sale"
        for sku, bought in sorted(sold.bought.items())
        if bought > sold.units_each
    ]
    return _verdict("agents_not_oversold", len(sold.bought), wrong)


def books_balance(sold: Sold, levels: Mapping[str, StockLevel]) -> Verdict:
    """Check that what the target has sold is what the agents bought, lost answers allowed for."""
    wrong = []
    for sku, level in levels.items():
        least = sold.bought.get(sku, 0)
        most = least + sold.unknown.get(sku, 0)
        if not least <= level.committed <= most:
            wrong.append(f"{sku}: {level.committed} units committed, agents bought {least}")
    return _verdict("books_balance", len(levels), wrong)


def units_of(sold: Sold, levels: Mapping[str, StockLevel]) -> Units:
    """Return where the units of a run went; levels that are not known count as empty."""
    on_sale = len(sold.skus) * sold.units_each
    over = {sku: bought - sold.units_each for sku, bought in sold.bought.items()}
    for sku, level in levels.items():
        claimed = level.committed + level.held - level.on_hand
        over[sku] = max(over.get(sku, 0), claimed)
    oversold = sum(max(units, 0) for units in over.values())
    held = sum(level.held for level in levels.values())
    return Units(on_sale, sum(sold.bought.values()), oversold, held)


async def _levels(client: AsyncClient, skus: Sequence[str]) -> dict[str, StockLevel]:
    levels: dict[str, StockLevel] = {}
    for first in range(0, len(skus), PAGE_SIZE):
        page = await client.get_stock(skus[first : first + PAGE_SIZE], timeout=CALL_S_MAX)
        levels |= {level.sku: level for level in page.levels}
    return levels


def _verdict(name: str, looked_at: int, wrong: Sequence[str]) -> Verdict:
    return Verdict(name, not wrong, looked_at, list(wrong[:VIOLATIONS_MAX]))
