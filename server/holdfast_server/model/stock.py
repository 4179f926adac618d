"""What the store knows: items and their levels, reservations and their lines."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from holdfast_server.model.operations import Context


class LateCommit(IntEnum):
    """What happens to a commit that comes after the expiry; the numbers of types.proto."""

    REJECT = 1
    RETRY = 2
    REVIEW = 3


class State(IntEnum):
    """State of a reservation; the numbers of `ReservationState` in types.proto."""

    HELD = 1
    COMMITTED = 2
    RELEASED = 3
    EXPIRED = 4


class Level(NamedTuple):
    """An item's counters and policy, exact as of `revision`.

    The kernel also keeps in it what its pressure goes by (lua/kernel/outlook.lua): `demand`, the
    units sold of late in thousandths, as of `demand_ms`; `damped`, the units available with
    backlash; and `cover_ms`, the time they last at that demand, with backlash.
    """

    sku: str
    on_hand: int
    held: int
    committed: int
    backordered: int
    owed: int
    revision: int
    demand_ms: int
    demand: int
    damped: int
    cover_ms: int
    safety_stock: int
    oversell_limit: int
    oversell_share: int
    plenty_at: int
    low_at: int
    scarce_at: int
    hold_ttl_default_ms: int
    hold_ttl_max_ms: int
    hold_lifetime_max_ms: int
    late_commit: int
    sellout_horizon_ms: int
    channel_count: int

    @property
    def available(self) -> int:
        """Return the units that can be promised from stock; negative after a recount."""
        return self.on_hand - self.held - self.committed - self.safety_stock

    @property
    def allowance(self) -> int:
        """Return the units that may in all be sold beyond available."""
        if self.oversell_share:
            return min(self.oversell_limit, self.on_hand * self.oversell_share // 100)
        return self.oversell_limit

    @property
    def oversell_left(self) -> int:
        """Return the units that may still be sold beyond available."""
        return max(0, self.allowance + min(self.available, 0))

    @property
    def deficit(self) -> int:
        """Return the units claimed beyond on_hand that no oversell allowance granted."""
        return max(0, self.held + self.committed - self.backordered - self.on_hand)


class ChannelQuota(NamedTuple):
    """The most units a channel may have held plus committed, and how many it has."""

    channel: str
    quota: int
    used: int
    since_ms: int


class Item(NamedTuple):
    """One SKU, its policy and its level."""

    title: str
    system_of_record: str
    channels: tuple[ChannelQuota, ...]
    level: Level


class LocationStock(NamedTuple):
    """What is owned and claimed at one location."""

    location: str
    on_hand: int
    held: int
    committed: int
    revision: int = 0


class ReservedLine(NamedTuple):
    """Units of one SKU that a reservation has, and how many of them are beyond stock."""

    sku: str
    quantity: int
    backordered: int
    location: str


class Reservation(NamedTuple):
    """The record of one claim."""

    reservation_id: str
    state: State
    lines: tuple[ReservedLine, ...]
    principal: str
    context: Context
    created_ms: int
    expires_ms: int
    ended_ms: int
    sequence: int
    order_ref: str = ""
    replaced_by: str = ""
    late: bool = False
