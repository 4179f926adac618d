"""The oracle's rules for what becomes of a claim: Commit, Release, Extend."""

from __future__ import annotations

from collections import Counter
from typing import Any

from holdfast_server.model import (
    LINES_MAX,
    Code,
    Commit,
    Extend,
    Kind,
    LateCommit,
    Line,
    Movement,
    Outcome,
    RefusedLine,
    Release,
    State,
)
from tests.contract.oracle.books import Change, Claim, Units
from tests.contract.oracle.free import Free
from tests.contract.oracle.reservations import TTL_MS_MAX, TTL_MS_MIN, Reservations, bad_lines

Excess = tuple[str, str, int, int]


class Endings(Reservations):
    """Commit, Release and Extend: only the owner or an operator, and each end only once."""

    def commit(self, op: Commit) -> Outcome:  # noqa: PLR0911  # one return for each check, in order
        if bad := "lines" if len(op.lines) > LINES_MAX else bad_lines(op.lines):
            return self.invalid(bad)
        claim = self.owned(op.reservation_id, op.caller)
        if isinstance(claim, Outcome):
            return claim
        taken = taken_units(claim, op.lines)
        if claim.state is State.COMMITTED and self._is_repeated(claim, op, taken):
            return self.replayed(claim)
        is_late = claim.state is State.EXPIRED and not claim.replaced_by
        if not (claim.state is State.HELD or (is_late and self._may_be_late(claim))):
            return self.ended(claim)
        if isinstance(taken, tuple):
            return self.answer(Code.EXCEEDS_HOLD, detail=taken)
        if stale := self.stale(claim.lines, op.if_sequence):
            lines = [refused(line, self.items[line.sku].available) for line in stale]
            return self.refusal(Code.STOCK_CHANGED, lines)
        if is_late:
            return self._commit_late(claim, op, taken)
        if lost := self._lost(claim, taken):
            return self.refusal(Code.STOCK_LOST, lost)
        return self._sell(claim, op, taken)

    def release(self, op: Release) -> Outcome:  # noqa: PLR0911  # one return for each check, in order
        if bad := "lines" if len(op.lines) > LINES_MAX else bad_lines(op.lines):
            return self.invalid(bad)
        claim = self.owned(op.reservation_id, op.caller)
        if isinstance(claim, Outcome):
            return claim
        is_repeat = bool(op.lines) and claim.last_release == op.lines
        if claim.state is State.RELEASED and not claim.replaced_by:
            return self.replayed(claim) if is_repeat or not op.lines else self.ended(claim)
        if claim.state is not State.HELD:
            return self.ended(claim)
        if is_repeat:
            return self.replayed(claim)
        taken = taken_units(claim, op.lines)
        if isinstance(taken, tuple):
            return self.answer(Code.EXCEEDS_HOLD, detail=taken)
        self.sequence += 1
        if sum(taken) == claim.units:
            movements = self.give_back(claim)
            self.end(claim, State.RELEASED)
        else:
            movements = self._give_back_part(claim, taken)
        claim.last_release = op.lines or None
        self.post(Kind.RELEASE, claim, movements, op)
        return self.shown(Code.OK, claim)

    def extend(self, op: Extend) -> Outcome:  # noqa: PLR0911  # one return for each check, in order
        if not TTL_MS_MIN <= op.ttl_ms <= TTL_MS_MAX:
            return self.invalid("ttl")
        claim = self.owned(op.reservation_id, op.caller)
        if isinstance(claim, Outcome):
            return claim
        if claim.state is not State.HELD:
            return self.ended(claim)
        if op.ttl_ms > self.ttl_ms_max(claim.lines):
            return self.invalid("ttl")
        expires_ms = self.now_ms + op.ttl_ms
        if expires_ms <= claim.expires_ms:
            return self.replayed(claim)
        lifetimes = [self.items[line.sku].policy["hold_lifetime_max_ms"] for line in claim.lines]
        latest_ms = claim.created_ms + min(lifetimes)
        if expires_ms > latest_ms:
            return self.answer(Code.LIFETIME_EXCEEDED, detail=latest_ms)
        self.sequence += 1
        claim.expires_ms = expires_ms
        self.placed_now.append(claim.id)
        self.post(Kind.EXTEND, claim, [], op)
        return self.answer(Code.OK, reservation=claim.record())

    def _is_repeated(self, claim: Claim, op: Commit, taken: Any) -> bool:
        if not op.lines:
            return not claim.is_partly_sold
        return bool(taken == [line.quantity for line in claim.lines])

    def _may_be_late(self, claim: Claim) -> bool:
        policies = {self.items[line.sku].policy["late_commit"] for line in claim.lines}
        return LateCommit.REJECT not in policies

    def _commit_late(self, claim: Claim, op: Commit, taken: list[int]) -> Outcome:
        """Take the units again as if they were asked for now; in review also beyond stock."""
        free = Free(self)
        wanted = [Line(u.sku, n, u.location) for u, n in zip(claim.lines, taken, strict=True)]
        over = self.over_quota(wanted, claim.channel, claim.created_ms, free)
        got = []
        for line in wanted:
            policy = self.items[line.sku].policy["late_commit"]
            got.append(free.take(line, may_backorder=policy == LateCommit.REVIEW))
        is_had = not over and None not in got
        if self.more_due and not (is_had and all(units and not units[1] for units in got)):
            return self.answer(Code.AGAIN)
        if not is_had:
            return self.ended(claim)
        claim.is_late = True
        for units, grant in zip(claim.lines, got, strict=True):
            units.backordered = grant[1] if grant else 0
        return self._sell(claim, op, taken)

    def _sell(self, claim: Claim, op: Commit, taken: list[int]) -> Outcome:
        """Sell real units before backordered ones; what is not sold of a hold is given back."""
        self.sequence += 1
        was_held = claim.state is State.HELD
        claim.is_partly_sold = sum(taken) < claim.units
        movements = []
        for line, sold in zip(claim.lines, taken, strict=True):
            beyond = line.backordered
            if was_held:
                owed = max(0, sold - (line.quantity - beyond))
                change = Change(-line.quantity, sold, owed - beyond, owed)
            else:
                owed = beyond
                change = Change(0, sold, owed, owed)
            movements += self.move(claim, line, change)
            line.quantity, line.backordered = sold, owed
        claim.order_ref = op.order_ref
        self.end(claim, State.COMMITTED)
        self.post(Kind.COMMIT, claim, movements, op)
        return self.shown(Code.OK, claim)

    def _lost(self, claim: Claim, taken: list[int]) -> list[RefusedLine]:
        """Return the lines whose real units a recount took away and others' sales used up."""
        wanted: Counter[str] = Counter()
        lost = []
        for line, sold in zip(claim.lines, taken, strict=True):
            item = self.items[line.sku]
            real = min(sold, line.quantity - line.backordered)
            wanted[line.sku] += real
            left = item.on_hand - (item.committed - item.owed)
            if real and wanted[line.sku] > left:
                lost.append(refused(line, max(0, left)))
        return lost

    def _give_back_part(self, claim: Claim, taken: list[int]) -> list[Movement]:
        """Free some units of a hold, backordered ones first."""
        movements = []
        for line, freed in zip(claim.lines, taken, strict=True):
            beyond = min(line.backordered, freed)
            movements += self.move(claim, line, Change(-freed, 0, -beyond))
            line.quantity -= freed
            line.backordered -= beyond
        return movements


def refused(line: Units, available: int) -> RefusedLine:
    return RefusedLine(line.sku, line.location, line.quantity, available, 0)


def taken_units(claim: Claim, wanted: tuple[Line, ...]) -> list[int] | Excess:
    """Return the units wanted of each line, all if none is named; or the first line in excess."""
    if not wanted:
        return [line.quantity for line in claim.lines]
    held = {(line.sku, line.location): line.quantity for line in claim.lines}
    taken: Counter[tuple[str, str]] = Counter()
    for sku, quantity, location in wanted:
        taken[sku, location] += quantity
        if taken[sku, location] > held.get((sku, location), 0):
            return sku, location, quantity, held.get((sku, location), 0)
    return [taken[line.sku, line.location] for line in claim.lines]
