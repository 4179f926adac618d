"""Random histories that meet: few SKUs, few ids, times at which holds just expire.

An operation follows from one number, so that Hypothesis shrinks a history by leaving some out.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple, TypeVar

from hypothesis import strategies as st

from holdfast_server.model import (
    AdjustStock,
    Caller,
    Commit,
    Context,
    Extend,
    GetReservation,
    GetStock,
    Line,
    Operation,
    Policy,
    PutItem,
    Release,
    Reserve,
    SetStock,
)

SKUS = ("A", "B", "C")
LOCATIONS = ("default", "east")
STEPS_MS = (0, 0, 1, 49, 50, 99, 100, 101, 1_000, 1_001, 10_000, 1_000_000)


class Batch(NamedTuple):
    """Operations that arrive together, some time after those before."""

    step_ms: int
    operations: tuple[Operation, ...]


class History(NamedTuple):
    """The terms of a cell and the batches that reach it."""

    hold_budget: int
    retention_ms: int
    batches: list[Batch]


T = TypeVar("T")


class _Dice(Random):
    """Choices with a usual answer, among so many reservations and about so many units."""

    ids = 8
    units = 8

    def one(self, *values: T) -> T:
        return self.choice(values)

    def rarely(self, *values: T, usual: T, chance: float = 0.2) -> T:
        return self.choice(values) if self.random() < chance else usual

    def caller(self) -> Caller:
        return self.rarely(Caller("q"), Caller("ops", True), usual=Caller("p"))

    def context(self) -> Context:
        odd = Context("agent", "session", "pos", "ref", "why")
        return self.rarely(odd, usual=self.one(Context(), Context(channel="web")))

    def id(self) -> str:
        return f"h{self.randrange(self.ids)}"

    def seen(self) -> int:
        return self.rarely(self.randrange(1, 80), usual=0, chance=0.1)

    def sku(self) -> str:
        return self.rarely("missing", usual=self.choice(SKUS), chance=0.04)

    def lines(self, most: int) -> tuple[Line, ...]:
        wanted = {
            (self.sku(), self.rarely(*LOCATIONS, usual="", chance=0.3)): self.quantity()
            for _ in range(self.randint(1, most))
        }
        return tuple(Line(sku, units, where) for (sku, where), units in wanted.items())

    def quantity(self) -> int:
        return self.rarely(0, 9, usual=self.randint(1, 4), chance=0.05)

    def ttl_ms(self) -> int:
        return self.rarely(50, 90_000_000, usual=self.one(0, 100, 150, 1_000, 60_000), chance=0.04)


def _reserve(dice: _Dice) -> Reserve:
    return Reserve(
        dice.id(),
        dice.caller(),
        dice.lines(3) if dice.random() < 0.98 else (),
        dice.ttl_ms(),
        dice.context(),
        allow_partial=dice.rarely(True, usual=False),
        allow_backorder=dice.rarely(True, usual=False, chance=0.3),
        if_sequence=dice.seen(),
        replaces=dice.rarely(dice.id(), usual="", chance=0.15),
    )


def _commit(dice: _Dice) -> Commit:
    lines = dice.rarely(dice.lines(2), usual=(), chance=0.4)
    return Commit(
        dice.id(), dice.caller(), lines, dice.one("", "order"), dice.context(), dice.seen()
    )


def _release(dice: _Dice) -> Release:
    lines = dice.rarely(dice.lines(2), usual=(), chance=0.6)
    return Release(dice.id(), dice.caller(), lines, dice.context())


def _extend(dice: _Dice) -> Extend:
    return Extend(dice.id(), dice.caller(), dice.ttl_ms(), dice.context())


def _read(dice: _Dice) -> Operation:
    skus = tuple(dice.sku() for _ in range(dice.randrange(4)))
    if dice.random() < 0.5:
        return GetReservation(dice.id(), dice.caller())
    return GetStock(skus)


def _put(dice: _Dice) -> PutItem:
    def maybe(*values: Any) -> Any:
        return dice.rarely(*values, usual=None)

    policy = Policy(
        safety_stock=maybe(0, 2),
        oversell_limit=maybe(0, 4),
        oversell_share=maybe(0, 25, 101),
        scarce_at=maybe(3, 9),
        hold_ttl_default_ms=maybe(100, 5_000),
        hold_ttl_max_ms=maybe(1_000, 60_000),
        hold_lifetime_max_ms=maybe(1_000, 120_000),
        late_commit=maybe(1, 2, 3, 4),
        sellout_horizon_ms=maybe(0, 5_000, 3_600_001),
        title=maybe("a title"),
        system_of_record=maybe("p", "wms"),
    )
    name, quota = dice.rarely("pos", "", usual="web"), dice.one(None, 0, 4, 9)
    channels = dice.rarely(((name, quota),), usual=(), chance=0.4)
    return PutItem(_request(dice), dice.caller(), dice.choice(SKUS), policy, channels)


def _adjust(dice: _Dice) -> AdjustStock:
    delta = dice.rarely(0, usual=dice.one(-6, -1, 1, 5), chance=0.05)
    reason = dice.rarely("found", usual="")
    return AdjustStock(
        _request(dice), dice.caller(), dice.sku(), delta, dice.choice(LOCATIONS), reason
    )


def _set(dice: _Dice) -> SetStock:
    as_of = dice.rarely(1, usual=None)
    return SetStock(
        _request(dice),
        dice.caller(),
        dice.sku(),
        dice.rarely(-2_000_000_000, usual=dice.randrange(dice.units), chance=0.05),
        dice.choice(LOCATIONS),
        expected=dice.rarely(*range(9), usual=None, chance=0.4),
        as_of_sequence=as_of,
        moved=dice.rarely(-3, usual=0) if as_of else 0,
        if_sequence=dice.seen(),
    )


def _request(dice: _Dice) -> str:
    return f"r{dice.randrange(40)}"


_KINDS: dict[Callable[[_Dice], Operation], int] = {
    _reserve: 9,
    _commit: 7,
    _release: 4,
    _extend: 3,
    _read: 2,
    _put: 2,
    _adjust: 1,
    _set: 1,
}


def operation(number: int, *, ids: int = 8, units: int = 8) -> Operation:
    """Return the operation that a number stands for."""
    dice = _Dice(number)
    dice.ids, dice.units = ids, units
    (make,) = dice.choices(list(_KINDS), list(_KINDS.values()))
    return make(dice)


def batch(numbers: list[int]) -> Batch:
    """Return the batch that some numbers stand for, the first one for its time."""
    step, *rest = numbers
    return Batch(_Dice(step).choice(STEPS_MS), tuple(map(operation, rest)))


def opening(*, units: int) -> tuple[Operation, ...]:
    """Make the items, each with another late_commit policy, and put units on the shelves."""
    caller = Caller("p")
    made: list[Operation] = []
    for number, sku in enumerate(SKUS):
        policy = Policy(late_commit=number + 1, oversell_limit=2 * number)
        made += [
            PutItem(f"put-{sku}", caller, sku, policy, (("web", units),)),
            AdjustStock(f"add-{sku}", caller, sku, units, "default"),
            AdjustStock(f"east-{sku}", caller, sku, 4, "east"),
        ]
    return tuple(made)


def long_history(seed: int, *, batches: int, ids: int) -> History:
    """Return large batches on many reservations; now and then more fall due than one may end."""
    dice = Random(seed)
    made = [Batch(0, opening(units=1_000))]
    for number in range(batches):
        size = dice.choice((0, 3, 40, 120))
        operations = [operation(dice.getrandbits(24), ids=ids, units=1_000) for _ in range(size)]
        made.append(Batch(dice.choice((0, 0, 1, 100, 100_000)), tuple(operations)))
        if number % 10 == 0:
            made += [Batch(0, _flood(number)), Batch(1_000, made[-1].operations[:5])]
    return History(dice.choice((0, 100)), dice.choice((900_000, 5_000)), made)


def _flood(number: int) -> tuple[Operation, ...]:
    """Return holds of many principals that all expire together."""
    return tuple(
        Reserve(f"f{number}-{n}", Caller(f"p{n}"), (Line(SKUS[n % 3], 1),), 1_000)
        for n in range(150)
    )


_numbers = st.lists(st.integers(0, 2**24 - 1), min_size=2, max_size=12)
histories = st.builds(
    History,
    hold_budget=st.sampled_from((0, 0, 0, 9)),
    retention_ms=st.sampled_from((900_000, 900_000, 1_000)),
    batches=st.lists(_numbers.map(batch), min_size=4, max_size=14).map(
        lambda batches: [Batch(0, opening(units=8)), *batches]
    ),
)
