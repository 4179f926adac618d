"""The oracle's rules for items and counted stock: PutItem, AdjustStock, SetStock."""

from __future__ import annotations

from typing import Any

from holdfast_server.model import (
    UNITS_MAX,
    AdjustStock,
    Code,
    Kind,
    LedgerEntry,
    LocationStock,
    Movement,
    Outcome,
    PutItem,
    RefusedLine,
    SetStock,
)
from tests.contract.oracle.books import DEFAULT_POLICY, Books, Quota, Stock

DAY_MS = 86_400_000
LIMITS = {
    "safety_stock": (0, UNITS_MAX),
    "oversell_limit": (0, UNITS_MAX),
    "oversell_share": (0, 100),
    "plenty_at": (0, UNITS_MAX),
    "low_at": (0, UNITS_MAX),
    "scarce_at": (0, UNITS_MAX),
    "hold_ttl_default_ms": (100, DAY_MS),
    "hold_ttl_max_ms": (100, DAY_MS),
    "hold_lifetime_max_ms": (100, 7 * DAY_MS),
    "late_commit": (1, 3),
    "sellout_horizon_ms": (0, 3_600_000),
}
CHANNELS_MAX = 100


class Counts(Books):
    """Inventory operations; each is done once per request id."""

    def put_item(self, op: PutItem) -> Outcome:
        known = self.items.get(op.sku)
        if (before := self._before(op)) is not None:
            return self._told(before, op, (known.level(),) if known else ())
        if not op.sku:
            return self.invalid("item.sku")
        policy = dict(known.policy if known else DEFAULT_POLICY)
        policy |= {name: v for name in LIMITS if (v := getattr(op.policy, name)) is not None}
        bad = self._bad_channels(op, known) or self._bad_policy(policy)
        if bad:
            return self.invalid(f"item.{bad.removesuffix('_ms')}")
        self.sequence += 1
        item = self.items.setdefault(op.sku, Stock(op.sku))
        item.policy, item.revision = policy, self.sequence
        item.title = item.title if op.policy.title is None else op.policy.title
        owner = op.policy.system_of_record
        item.owner = item.owner if owner is None else owner
        item.outlook.follow(self.now_ms, 0, item.available)
        self._put_quotas(item, op)
        self._done(op, Kind.PUT_ITEM, item=item.item())
        return self.answer(Code.OK, levels=(item.level(),))

    def adjust_stock(self, op: AdjustStock) -> Outcome:
        if not 1 <= abs(op.delta) <= UNITS_MAX:
            return self.invalid("delta")
        if op.sku not in self.items:
            return self.answer(Code.UNKNOWN_SKU, detail=(op.sku,))
        if (before := self._before(op)) is not None:
            return self._counted(before, op)
        if not self._fits(op.sku, op.location, op.delta):
            return self.invalid("delta")
        return self._count(op, Kind.ADJUST_STOCK, op.delta)

    def set_stock(self, op: SetStock) -> Outcome:  # noqa: PLR0911  # one return for each check, in order
        on_hand = op.on_hand + op.moved
        if not -UNITS_MAX <= on_hand <= UNITS_MAX:
            return self.invalid("on_hand")
        if op.sku not in self.items:
            return self.answer(Code.UNKNOWN_SKU, detail=(op.sku,))
        if (before := self._before(op)) is not None:
            return self._counted(before, op)
        item, place = self.items[op.sku], self.place(op.sku, op.location)
        if item.owner not in ("", op.caller.principal) and not op.caller.is_operator:
            return self.answer(Code.NOT_OWNER, detail=item.owner)
        if op.expected is not None and op.expected != place.on_hand:
            return self.answer(Code.STALE_QUANTITY, detail=place.on_hand)
        if 0 < op.if_sequence < item.revision:
            line = RefusedLine(op.sku, op.location, on_hand, item.available, 0)
            return self.refusal(Code.STOCK_CHANGED, [line])
        delta = on_hand - place.on_hand
        if not self._fits(op.sku, op.location, delta):
            return self.invalid("on_hand")
        return self._count(op, Kind.SET_STOCK, delta)

    def _count(self, op: AdjustStock | SetStock, kind: Kind, delta: int) -> Outcome:
        self.sequence += 1
        item, place = self.items[op.sku], self.place_to_change(op.sku, op.location)
        item.on_hand += delta
        place.on_hand += delta
        item.revision = self.sequence
        item.outlook.follow(self.now_ms, 0, item.available)
        moved = (Movement(op.sku, op.location, delta, 0, 0, 0),)
        self._done(op, kind, movements=moved, reason=op.reason, reference=op.reference)
        return self._counted(Code.OK, op)

    def _counted(self, code: Code, op: AdjustStock | SetStock) -> Outcome:
        place = self.place(op.sku, op.location)
        stock = LocationStock(
            op.location, place.on_hand, place.held, place.committed, place.revision
        )
        return self._told(code, op, (self.items[op.sku].level(),), stock)

    def _told(self, code: Code, op: Any, levels: Any, place: Any = None) -> Outcome:
        if code is Code.RESERVATION_ID_REUSED:
            return self.answer(code, detail=op.request_id)
        return self.answer(code, levels=levels, detail=place)

    def _fits(self, sku: str, location: str, delta: int) -> bool:
        totals = (self.items[sku].on_hand + delta, self.place(sku, location).on_hand + delta)
        return all(-UNITS_MAX <= total <= UNITS_MAX for total in totals)

    def _before(self, op: Any) -> Code | None:
        """Tell whether the request id was used before, and for the same."""
        if op.request_id not in self.requests:
            return None
        same = self.requests[op.request_id] == _payload(op)
        return Code.REPLAYED if same else Code.RESERVATION_ID_REUSED

    def _done(self, op: Any, kind: Kind, *, movements: Any = (), **fields: Any) -> None:
        self.requests[op.request_id] = _payload(op)
        self.ended_now.append(f"~{op.request_id}")
        self.ledger.append(
            LedgerEntry(
                self.sequence,
                1,
                self.now_ms,
                kind,
                op.request_id,
                op.caller.principal,
                movements,
                **fields,
            )
        )

    def _put_quotas(self, item: Stock, op: PutItem) -> None:
        for name, most in op.channels:
            if most is None:
                item.quotas.pop(name, None)
            elif name in item.quotas:
                item.quotas[name].most = most
            else:
                item.quotas[name] = Quota(most, 0, self.now_ms)

    def _bad_channels(self, op: PutItem, known: Stock | None) -> str:
        names = set(known.quotas) if known else set()
        for name, most in op.channels:
            if not name or (most is not None and not 0 <= most <= UNITS_MAX):
                return "channels"
            names = names | {name} if most is not None else names - {name}
        return "channels" if len(names) > CHANNELS_MAX else ""

    def _bad_policy(self, policy: dict[str, int]) -> str:
        for name, (low, high) in LIMITS.items():
            if not low <= policy[name] <= high:
                return name
        if not policy["scarce_at"] <= policy["low_at"] <= policy["plenty_at"]:
            return "low_at"
        ttls = [policy[f"hold_{name}_ms"] for name in ("ttl_default", "ttl_max", "lifetime_max")]
        return "" if ttls == sorted(ttls) else "hold_ttl_max"


def _payload(op: Any) -> Any:
    """Return what makes two requests the same: all but whether the caller is an operator.

    A count as of a moment is brought up to date anew at each try, which is not what was asked.
    """
    if isinstance(op, SetStock):
        op = op._replace(moved=0, if_sequence=0)
    return type(op), op._replace(caller=op.caller.principal)
