"""What peers answer with, and what they decide alike in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from holdfast_server.errors import (
    HoldfastError,
    ReservationCommitted,
    ReservationExpired,
    ReservationIdReused,
    ReservationReleased,
    UnknownReservation,
    UnknownSku,
)
from holdfast_server.model import State

Lines = tuple[tuple[str, int], ...]
"""SKUs and units, each SKU once and in order: locks are taken in that order."""


class Level(NamedTuple):
    """The stock of one SKU; due holds do not count."""

    sku: str
    on_hand: int
    held: int
    sold: int

    @property
    def available(self) -> int:
        """Return the units that can be held."""
        return self.on_hand - self.held - self.sold


class Hold(NamedTuple):
    """The record of a reservation; one that is HELD beyond `expires_ms` has expired."""

    reservation_id: str
    state: State
    lines: Lines
    created_ms: int
    expires_ms: int
    ended_ms: int = 0


class Answer(NamedTuple):
    """What was decided; no hold means that it was refused."""

    levels: Sequence[Level]
    now_ms: int
    hold: Hold | None = None
    replayed: bool = False


class Sale(NamedTuple):
    """Units of a SKU that its reservations have, by their records and not by a counter."""

    sold: int
    held: int


class Peer(Protocol):
    """A store of stock with the decisions of the contract."""

    async def reserve(self, reservation_id: str, lines: Lines, ttl_ms: int) -> Answer:
        """Hold every line or none.  Raises UnknownSku, ReservationIdReused."""

    async def end(self, reservation_id: str, state: State) -> Answer:
        """Commit or release a hold.  Raises UnknownReservation and the errors of `is_replay`."""

    async def levels(self, skus: Sequence[str]) -> Answer:
        """Return the levels of the SKUs that exist, in any order."""

    async def sales(self) -> Mapping[str, Sale]:
        """Return what the reservations of each SKU have."""


ENDED: dict[str, type[HoldfastError]] = {
    "committed": ReservationCommitted,
    "released": ReservationReleased,
    "expired": ReservationExpired,
    "unknown": UnknownReservation,
    "reused": ReservationIdReused,
    "unknown_sku": UnknownSku,
}


def fault(word: str, name: str) -> HoldfastError:
    """Return the error that a word stands for."""
    return ENDED[word](f"{name}: {word.replace('_', ' ')}")


def is_replay(hold: Hold, state: State, now_ms: int) -> bool:
    """Tell whether a hold has ended so before.

    Raises ReservationCommitted, ReservationReleased, ReservationExpired where it cannot end so.
    """
    if hold.state is state:
        return True
    if hold.state is not State.HELD:
        raise fault(hold.state.name.lower(), hold.reservation_id)
    if hold.expires_ms <= now_ms:
        raise fault("expired", hold.reservation_id)
    return False


def same(hold: Hold, lines: Lines, now_ms: int) -> Hold:
    """Return the hold that a repeated Reserve is answered with.  Raises ReservationIdReused."""
    if hold.lines != lines:
        raise fault("reused", hold.reservation_id)
    is_due = hold.state is State.HELD and hold.expires_ms <= now_ms
    return hold._replace(state=State.EXPIRED, ended_ms=hold.expires_ms) if is_due else hold


def check_known(levels: Sequence[Level], skus: Sequence[str]) -> None:
    """Raise UnknownSku unless each SKU has a level."""
    missing = set(skus) - {level.sku for level in levels}
    if missing:
        raise fault("unknown_sku", ", ".join(sorted(missing)))


def is_short(levels: Sequence[Level], lines: Lines) -> bool:
    """Tell whether a line asks for more than is available; both are in order of SKU."""
    return any(
        level.available < wanted for level, (_sku, wanted) in zip(levels, lines, strict=True)
    )


def after_hold(levels: Sequence[Level], lines: Lines) -> list[Level]:
    """Return the levels once the lines are held; both are in order of SKU."""
    return [
        level._replace(held=level.held + units)
        for level, (_sku, units) in zip(levels, lines, strict=True)
    ]


def after_end(levels: Sequence[Level], ended: Hold) -> list[Level]:
    """Return the levels once a hold has ended; both are in order of SKU."""
    is_sold = ended.state is State.COMMITTED
    return [
        level._replace(held=level.held - units, sold=level.sold + units * is_sold)
        for level, (_sku, units) in zip(levels, ended.lines, strict=True)
    ]


class PeerUnavailable(Exception):
    """What a peer stands on cannot be had on this machine."""
