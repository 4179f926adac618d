"""The oracle's state: items, places, claims and ledger as plain values, and how units move."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from holdfast_server.model import (
    ChannelQuota,
    Code,
    Context,
    Item,
    Kind,
    LateCommit,
    LedgerEntry,
    Level,
    Movement,
    Outcome,
    RefusedLine,
    Reservation,
    Reserve,
    ReservedLine,
    State,
)
from tests.contract.oracle.outlook import Outlook

DEFAULT_POLICY: dict[str, int] = {
    "safety_stock": 0,
    "oversell_limit": 0,
    "oversell_share": 0,
    "plenty_at": 100,
    "low_at": 5,
    "scarce_at": 3,
    "hold_ttl_default_ms": 10_000,
    "hold_ttl_max_ms": 900_000,
    "hold_lifetime_max_ms": 7_200_000,
    "late_commit": LateCommit.REJECT,
    "sellout_horizon_ms": 30_000,
}


@dataclass
class Quota:
    """Units of an item that a channel may have, and has, of claims made since the quota was set."""

    most: int
    used: int
    since_ms: int


@dataclass
class Stock:
    """One item: its counters, its policy, its quotas."""

    sku: str
    policy: dict[str, int] = field(default_factory=lambda: dict(DEFAULT_POLICY))
    title: str = ""
    owner: str = ""
    quotas: dict[str, Quota] = field(default_factory=dict)
    on_hand: int = 0
    held: int = 0
    committed: int = 0
    backordered: int = 0
    owed: int = 0
    revision: int = 0
    outlook: Outlook = field(default_factory=Outlook)

    @property
    def available(self) -> int:
        return self.on_hand - self.held - self.committed - self.policy["safety_stock"]

    @property
    def allowance(self) -> int:
        """Units that may be sold beyond available: the limit, and no more than the share."""
        share = self.policy["oversell_share"]
        limit = self.policy["oversell_limit"]
        return min(limit, self.on_hand * share // 100) if share else limit

    def level(self) -> Level:
        counters = (self.on_hand, self.held, self.committed, self.backordered, self.owed)
        seen = self.outlook
        outlook = (seen.demand_ms, seen.demand, seen.damped, seen.cover_ms)
        policy = tuple(self.policy.values())
        return Level._make(
            (self.sku, *counters, self.revision, *outlook, *policy, len(self.quotas))
        )

    def item(self) -> Item:
        quotas = [ChannelQuota(name, q.most, q.used, q.since_ms) for name, q in self.quotas.items()]
        return Item(self.title, self.owner, tuple(quotas), self.level())


@dataclass
class Place:
    """Stock at one location of an item."""

    on_hand: int = 0
    held: int = 0
    committed: int = 0
    revision: int = 0

    @property
    def free(self) -> int:
        return self.on_hand - self.held - self.committed


@dataclass
class Units:
    """One line of a claim, as it stands."""

    sku: str
    location: str
    quantity: int
    backordered: int = 0


@dataclass
class Claim:
    """One reservation, from the Reserve that made it to its end."""

    made_by: Reserve
    lines: list[Units]
    created_ms: int
    expires_ms: int
    is_budgeted: bool
    state: State = State.HELD
    ended_ms: int = 0
    sequence: int = 0
    order_ref: str = ""
    replaced_by: str = ""
    is_late: bool = False
    is_partly_sold: bool = False
    last_release: Any = None

    @property
    def id(self) -> str:
        return self.made_by.reservation_id

    @property
    def principal(self) -> str:
        return self.made_by.caller.principal

    @property
    def channel(self) -> str:
        return self.made_by.context.channel

    @property
    def units(self) -> int:
        return sum(line.quantity for line in self.lines)

    def record(self) -> Reservation:
        return Reservation(
            self.id,
            self.state,
            tuple(ReservedLine(u.sku, u.quantity, u.backordered, u.location) for u in self.lines),
            self.principal,
            self.made_by.context,
            self.created_ms,
            self.expires_ms,
            self.ended_ms,
            self.sequence,
            self.order_ref,
            self.replaced_by,
            self.is_late,
        )


class Change(NamedTuple):
    """Signed changes of held, committed, backordered and owed units."""

    held: int
    sold: int
    beyond: int
    owed: int = 0


class Books:
    """All state of a cell, and the few ways in which it changes."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.sequence = 0
        self.items: dict[str, Stock] = {}
        self.places: dict[tuple[str, str], Place] = {}
        self.budgets: defaultdict[str, int] = defaultdict(int)
        self.claims: dict[str, Claim] = {}
        self.requests: dict[str, Any] = {}
        self.ledger: list[LedgerEntry] = []
        self.ended_now: list[str] = []

    def place(self, sku: str, location: str) -> Place:
        """Return a place to read; one that does not exist yet is empty."""
        return self.places.get((sku, location)) or Place()

    def place_to_change(self, sku: str, location: str) -> Place:
        place = self.places.setdefault((sku, location), Place())
        place.revision = self.sequence
        return place

    def answer(self, code: Code, **fields: Any) -> Outcome:
        return Outcome(code, self.sequence, self.now_ms, **fields)

    def invalid(self, name: str) -> Outcome:
        return self.answer(Code.INVALID, detail=(name,))

    def levels(self, lines: Any) -> tuple[Level, ...]:
        return tuple(self.items[line.sku].level() for line in lines)

    def refusal(self, code: Code, refused: list[RefusedLine]) -> Outcome:
        return self.answer(code, levels=self.levels(refused), detail=tuple(refused))

    def move(self, claim: Claim, line: Units, change: Change) -> list[Movement]:
        """Move units of a line between held and committed on every account that counts them."""
        held, sold, beyond, owed = change
        if not held and not sold:
            return []
        item = self.items[line.sku]
        item.held += held
        item.committed += sold
        item.backordered += beyond
        item.owed += owed
        item.revision = self.sequence
        if held + sold:
            item.outlook.follow(self.now_ms, held + sold, item.available)
        if line.location:
            place = self.place_to_change(line.sku, line.location)
            place.held += held
            place.committed += sold
        quota = item.quotas.get(claim.channel)
        if quota and claim.created_ms >= quota.since_ms:
            quota.used = max(0, quota.used + held + sold)
        if claim.is_budgeted:
            self.budgets[claim.principal] += held
        return [Movement(line.sku, line.location, 0, held, sold, beyond)]

    def give_back(self, claim: Claim) -> list[Movement]:
        """Free all that a live claim holds; its lines go on saying what that was."""
        return [
            movement
            for line in claim.lines
            for movement in self.move(claim, line, Change(-line.quantity, 0, -line.backordered))
        ]

    def end(self, claim: Claim, state: State) -> None:
        claim.state, claim.ended_ms = state, self.now_ms
        self.ended_now.append(claim.id)

    def post(self, kind: Kind, claim: Claim, movements: list[Movement], by: Any = None) -> None:
        """Write the ledger entry; without `by` the cell did it itself."""
        claim.sequence = self.sequence
        self.ledger.append(
            LedgerEntry(
                self.sequence,
                1,
                self.now_ms,
                kind,
                claim.id,
                by.caller.principal if by else claim.principal,
                tuple(movements),
                claim.record(),
                context=by.context if by else Context(),
                order_ref=claim.order_ref,
            )
        )

    def expire(self, claim: Claim) -> None:
        self.sequence += 1
        movements = self.give_back(claim)
        self.end(claim, State.EXPIRED)
        self.post(Kind.EXPIRE, claim, movements)

    def claim(self, reservation_id: str) -> Claim | None:
        """Return a claim as it stands now: one whose time has run out has expired."""
        claim = self.claims.get(reservation_id)
        if claim and claim.state is State.HELD and claim.expires_ms <= self.now_ms:
            self.expire(claim)
        return claim
