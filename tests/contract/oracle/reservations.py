"""The oracle's rules for making a claim: Reserve, and what is common to all its successors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from holdfast_server.model import (
    LINES_MAX,
    UNITS_MAX,
    Caller,
    Code,
    Kind,
    Line,
    Outcome,
    RefusedLine,
    Reserve,
    State,
)
from tests.contract.oracle.books import Books, Change, Claim, Units
from tests.contract.oracle.free import Free

TTL_MS_MIN, TTL_MS_MAX = 100, 86_400_000
WANTED = -1  # stands for the next expiry, which is filled in when the batch is over

Refused = list[tuple[Any, int]]


class Reservations(Books):
    """Reserve.  `hold_budget` 0 = none; `more_due` while overdue holds are left to end."""

    hold_budget = 0
    more_due = False

    def __init__(self) -> None:
        super().__init__()
        self.placed_now: list[str] = []

    def reserve(self, op: Reserve) -> Outcome:  # noqa: PLR0911  # one return for each check, in order
        if bad := bad_reserve(op):
            return self.invalid(bad)
        if missing := tuple(line.sku for line in op.lines if line.sku not in self.items):
            return self.answer(Code.UNKNOWN_SKU, detail=missing)
        if (existing := self.claim(op.reservation_id)) is not None:
            if payload(existing.made_by) == payload(op):
                return self.replayed(existing)
            return self.answer(Code.RESERVATION_ID_REUSED, detail=op.reservation_id)
        if op.ttl_ms > self.ttl_ms_max(op.lines):
            return self.invalid("ttl")
        old = self._replaced(op)
        if isinstance(old, Outcome):
            return old
        granted = self._decide(op, old)
        return granted if isinstance(granted, Outcome) else self._hold(op, old, granted)

    def owned(self, reservation_id: str, caller: Caller) -> Claim | Outcome:
        """Return a claim that the caller may act on, or what to answer."""
        claim = self.claim(reservation_id)
        if claim is None:
            return self.answer(Code.UNKNOWN_RESERVATION, detail=reservation_id)
        if claim.principal != caller.principal and not caller.is_operator:
            return self.answer(Code.NOT_OWNER, detail=reservation_id)
        return claim

    def ended(self, claim: Claim) -> Outcome:
        """Say why a claim cannot be acted on any more."""
        codes = {
            State.COMMITTED: Code.RESERVATION_COMMITTED,
            State.RELEASED: Code.RESERVATION_RELEASED,
            State.EXPIRED: Code.RESERVATION_EXPIRED,
        }
        code = Code.RESERVATION_SUPERSEDED if claim.replaced_by else codes[claim.state]
        return self.answer(code, reservation=claim.record())

    def replayed(self, claim: Claim) -> Outcome:
        return self.shown(Code.REPLAYED, claim)

    def shown(self, code: Code, claim: Claim) -> Outcome:
        return self.answer(code, reservation=claim.record(), levels=self.levels(claim.lines))

    def ttl_ms_max(self, lines: Iterable[Any]) -> int:
        return min(self.items[line.sku].policy["hold_ttl_max_ms"] for line in lines)

    def stale(self, lines: Iterable[Any], if_sequence: int) -> list[Any]:
        """Return the lines whose item changed after what the caller had seen."""
        if not if_sequence:
            return []
        return [line for line in lines if self.items[line.sku].revision > if_sequence]

    def over_quota(
        self, lines: Iterable[Any], channel: str, created_ms: int, free: Free
    ) -> Refused:
        """Return the lines with which a channel goes beyond its quota."""
        wanted: Counter[str] = Counter()
        refused: Refused = []
        for line in lines:
            left = free.quota(line.sku, channel, created_ms)
            wanted[line.sku] += line.quantity
            if left is not None and wanted[line.sku] > left:
                refused.append((line, left))
        return refused

    def _replaced(self, op: Reserve) -> Claim | Outcome | None:
        """Return the claim that makes room; neither a sale nor what already has a successor."""
        if not op.replaces:
            return None
        old = self.owned(op.replaces, Caller(op.caller.principal))  # an operator's own, too
        if isinstance(old, Claim) and (old.state is State.COMMITTED or old.replaced_by):
            return self.ended(old)
        return old

    def _decide(self, op: Reserve, old: Claim | None) -> Outcome | list[Units]:
        """Return what the lines get, or the refusal; reasons have a fixed order."""
        if stale := self.stale(op.lines, op.if_sequence):
            free = Free(self, old)
            refused = [(line, free.units(line.sku)) for line in stale]
            return self._refuse(op, Code.STOCK_CHANGED, refused)
        code, lines, refused = self._judge(op, Free(self, old))
        got_all = [line.quantity for line in op.lines] == [line.quantity for line in lines]
        if self.more_due and (not got_all or any(line.backordered for line in lines)):
            return self.answer(Code.AGAIN)
        return self._refuse(op, code, refused, Free(self, old)) if code else lines

    def _judge(self, op: Reserve, free: Free) -> tuple[Code | None, list[Units], Refused]:
        left = free.budget(op.caller.principal, self.hold_budget)
        if self.hold_budget and sum(line.quantity for line in op.lines) > left:
            return Code.HOLD_BUDGET, [], [(line, left) for line in op.lines]
        if over := self.over_quota(op.lines, op.context.channel, self.now_ms, free):
            return Code.CHANNEL_QUOTA, [], over
        lines, refused = [], []
        for line in op.lines:
            available = free.units(line.sku, line.location)
            got = free.take(line, may_backorder=op.allow_backorder, may_be_part=op.allow_partial)
            if got is None or got == (0, 0):
                refused.append((line, available))
            lines.append(Units(line.sku, line.location, *(got or (0, 0))))
        if refused and (not op.allow_partial or len(refused) == len(lines)):
            return Code.OUT_OF_STOCK, [], refused
        return None, lines, []

    def _refuse(
        self, op: Reserve, code: Code, refused: Refused, free: Free | None = None
    ) -> Outcome:
        """Refuse, with what there is; when out of stock, with when units held may come free."""
        detail = []
        for line, available in refused:
            is_held = code is Code.OUT_OF_STOCK and free is not None and free.held(line.sku) > 0
            when = WANTED if is_held else 0
            detail.append(RefusedLine(line.sku, line.location, line.quantity, available, when))
        return self.answer(code, levels=self.levels(op.lines), detail=tuple(detail))

    def _hold(self, op: Reserve, old: Claim | None, lines: list[Units]) -> Outcome:
        if old:
            self._supersede(old, op)
        self.sequence += 1
        ttl_ms = op.ttl_ms or min(
            self.items[line.sku].policy["hold_ttl_default_ms"] for line in op.lines
        )
        claim = Claim(op, lines, self.now_ms, self.now_ms + ttl_ms, self.hold_budget > 0)
        movements = [
            movement
            for line in lines
            for movement in self.move(claim, line, Change(line.quantity, 0, line.backordered))
        ]
        self.claims[op.reservation_id] = claim
        self.placed_now.append(op.reservation_id)
        self.post(Kind.RESERVE, claim, movements, op)
        return self.shown(Code.OK, claim)

    def _supersede(self, old: Claim, op: Reserve) -> None:
        self.sequence += 1
        movements = []
        if old.state is State.HELD:
            movements = self.give_back(old)
            self.end(old, State.RELEASED)
        old.replaced_by = op.reservation_id
        self.post(Kind.SUPERSEDE, old, movements)


def payload(op: Reserve) -> Reserve:
    """Return what makes two requests the same: all but whether the caller is an operator."""
    return op._replace(caller=Caller(op.caller.principal))


def bad_lines(lines: Sequence[Line]) -> str:
    """Name the first field of the lines that breaks its limits."""
    for line in lines:
        if not line.sku:
            return "lines.sku"
        if not 1 <= line.quantity <= UNITS_MAX:
            return "lines.quantity"
    return ""


def bad_reserve(op: Reserve) -> str:
    if not 1 <= len(op.lines) <= LINES_MAX:
        return "lines"
    if op.ttl_ms and not TTL_MS_MIN <= op.ttl_ms <= TTL_MS_MAX:
        return "ttl"
    if op.replaces == op.reservation_id:
        return "replaces"
    return bad_lines(op.lines)
