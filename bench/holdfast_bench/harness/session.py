"""One agent's life: it browses, thinks, reserves, and then pays, fails to, or is never seen again.

The first call of a session is intended for its planned start, each other one for the end of the
call before it and the time the agent thinks in between.  Whatever delays a call beyond that
moment, here or at the server, is part of its response time.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random
from typing import Any, NamedTuple

from google.protobuf.duration_pb2 import Duration

from holdfast.v1 import ledger_pb2
from holdfast.v1 import stock_pb2 as pb
from holdfast.v1.types_pb2 import Line
from holdfast_bench.harness.alarm import Alarm
from holdfast_bench.harness.answers import Answer
from holdfast_bench.harness.distributions import several
from holdfast_bench.harness.recording import Outcome, Recorder
from holdfast_bench.harness.scenario_tables import Life
from holdfast_bench.harness.transport import Transport
from holdfast_bench.harness.unary import RPCS

ACKNOWLEDGED_MAX = 500_000  # answers of a worker that are kept for the check afterwards
SEEDS_APART = 1_000_003

_KINDS = {
    "reserve": ledger_pb2.ENTRY_KIND_RESERVE,
    "commit": ledger_pb2.ENTRY_KIND_COMMIT,
    "release": ledger_pb2.ENTRY_KIND_RELEASE,
}
_UNKNOWN = frozenset({Outcome.ERROR, Outcome.DEADLINE})
UNANSWERED = Answer(Outcome.DEADLINE, "UNANSWERED")


@dataclass
class Tally:
    """What the agents of a worker were told, to be compared with the target's books."""

    bought: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    # Triples of session, kind of ledger entry, sequence: ids follow from the session.
    acknowledged: array[int] = field(default_factory=lambda: array("q"))

    def told(self, number: int, kind: str, sequence: int) -> None:
        """Note an answer that the ledger must have."""
        if sequence and len(self.acknowledged) < 3 * ACKNOWLEDGED_MAX:
            self.acknowledged.extend((number, _KINDS[kind], sequence))


class Dice(NamedTuple):
    """What of a life is left to chance, each by the dice of one session."""

    sku: Callable[[Random], int]
    think_s: Callable[[Random], float]
    pay_s: Callable[[Random], float]


@dataclass
class Shop:
    """What the sessions of one worker share."""

    run_id: str
    seed: int
    life: Life
    skus: Sequence[str]
    dice: Dice
    recorder: Recorder
    phase_at: Callable[[float], str]
    alarm: Alarm
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        shares = self.life.ends.shares()
        self._ends, self._weights = list(shares), list(accumulate(shares.values()))
        self.ttl = Duration()
        self.ttl.FromMilliseconds(round(self.life.ttl_s * 1000))

    def basket(self, rng: Random) -> dict[str, int]:
        """Return units by SKU, as many different ones as the cart has lines."""
        (least, most), (low, high) = self.life.lines, self.life.quantity
        lines = least if least == most else rng.randint(least, most)
        chosen = several(self.dice.sku, len(self.skus), lines, rng)
        return {
            self.skus[number]: low if low == high else rng.randint(low, high) for number in chosen
        }

    def end(self, rng: Random) -> str:
        """Return how a hold ends."""
        return rng.choices(self._ends, cum_weights=self._weights)[0]


def reservation_id(run_id: str, number: int) -> str:
    """Return the id of a session's reservation."""
    return f"{run_id}-{number}"


class Session:
    """One session; `number` is its place in the plan, which decides everything it draws."""

    def __init__(self, shop: Shop, transport: Transport, number: int, planned: float) -> None:
        self._shop, self._transport, self._number = shop, transport, number
        self._rng = Random(shop.seed * SEEDS_APART + number)
        self._id = reservation_id(shop.run_id, number)
        self._next = planned  # when the next call is intended

    async def live(self) -> None:
        """Do all of it, up to the first answer that leaves nothing more to do."""
        shop, rng = self._shop, self._rng
        basket = shop.basket(rng)
        if not await self._browse(list(basket)):
            return
        lines = [Line(sku=sku, quantity=units) for sku, units in basket.items()]
        request = pb.ReserveRequest(reservation_id=self._id, lines=lines, ttl=shop.ttl)
        if (await self._call("reserve", request)).outcome is not Outcome.OK:
            return
        end = shop.end(rng)
        if end == "die":
            return
        await self._wait(shop.dice.pay_s(rng))
        if end == "commit":
            await self._commit(basket)
        else:
            await self._call("release", pb.ReleaseRequest(reservation_id=self._id))

    async def _browse(self, skus: list[str]) -> bool:
        shop, how = self._shop, self._shop.life.browse
        if how == "none":
            return True
        if how == "get_stock":
            answer = await self._call("get_stock", pb.GetStockRequest(skus=skus))
            await self._wait(shop.dice.think_s(self._rng))
            return answer.outcome is Outcome.OK
        sent = time.perf_counter()
        answer, watching = await self._transport.watch(pb.WatchRequest(skus=skus))
        try:
            self._record("Watch", sent, answer)
            await self._wait(shop.dice.think_s(self._rng))
        finally:
            watching.cancel()
        return answer.outcome is Outcome.OK

    async def _commit(self, basket: dict[str, int]) -> None:
        try:
            answer = await self._call("commit", pb.CommitRequest(reservation_id=self._id))
        except asyncio.CancelledError:
            self._shop.tally.unknown.update(basket)
            raise
        if answer.outcome is Outcome.OK:
            self._shop.tally.bought.update(basket)
        elif answer.outcome in _UNKNOWN:
            self._shop.tally.unknown.update(basket)

    async def _call(self, kind: str, request: Any) -> Answer:
        sent = time.perf_counter()
        try:
            answer = await self._transport.call(kind, request)
        except asyncio.CancelledError:  # the drain is over: a call without an answer counts too
            self._record(RPCS[kind], sent, UNANSWERED)
            raise
        self._record(RPCS[kind], sent, answer)
        if answer.outcome is Outcome.OK and kind in _KINDS:
            sequence = answer.message.reservation.sequence
            self._shop.tally.told(self._number, kind, sequence)
        return answer

    def _record(self, rpc: str, called: float, answer: Answer) -> None:
        answered, intended = time.perf_counter(), self._next
        self._next = answered
        shop, sent = self._shop, answer.sent or called
        shop.recorder.record(
            rpc,
            shop.phase_at(intended),
            intended,
            sent,
            answered,
            answer.outcome,
            answer.reason,
            sent - called,
        )

    async def _wait(self, seconds: float) -> None:
        self._next += seconds
        if seconds > 0:
            await self._shop.alarm.until(self._next)
