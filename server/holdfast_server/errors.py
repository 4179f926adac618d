"""Everything that can go wrong, as one tree.

    HoldfastError
    +-- CallerError                 the call as it stands can never succeed; nothing changed
    |   +-- InvalidArgument         names each field and its limit
    |   +-- UnknownSku, UnknownReservation
    |   +-- ReservationIdReused
    |   +-- ReservationExpired, ReservationCommitted, ReservationReleased, ReservationSuperseded
    |   +-- ExceedsHold, LifetimeExceeded
    |   +-- StaleQuantity
    |   +-- NotOwner, Unauthenticated
    |   +-- ResumeTokenExpired
    |   +-- Unimplemented
    +-- LoadError                   the server asks for patience; nothing changed
    |   +-- Throttled, Overloaded, Draining
    |   +-- SlowConsumer
    +-- StoreFault                  the store failed
        +-- StoreUnavailable        nothing was sent, or nothing was written
        |   +-- Fenced              another one leads: what a leader wrote was refused
        +-- OutcomeUnknown          the answer was lost; the same id may be sent again

Being sold out is none of these: a refusal is an answer (`model.Outcome`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from holdfast_server.model import Code, Outcome


class Violation(NamedTuple):
    """One bad field, by its path in the request, and the limit it breaks."""

    field: str
    description: str


class HoldfastError(Exception):
    """Root of the tree; `reason` and `metadata` go into ErrorInfo."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after_ms: int = 0,
        violations: tuple[Violation, ...] = (),
    ) -> None:
        super().__init__(message)
        self.metadata = dict(metadata or {})
        self.retry_after_ms = retry_after_ms
        self.violations = violations


class CallerError(HoldfastError):
    """The call as it stands can never succeed, and changed nothing."""


class InvalidArgument(CallerError):
    reason = "INVALID_ARGUMENT"

    @classmethod
    def of(cls, *violations: tuple[str, str]) -> InvalidArgument:
        """Return the error for some (field, limit) pairs."""
        named = tuple(Violation(*violation) for violation in violations)
        text = "; ".join(f"{field} {description}" for field, description in named)
        return cls(text, violations=named)


class UnknownSku(CallerError):
    reason = "UNKNOWN_SKU"


class UnknownReservation(CallerError):
    reason = "UNKNOWN_RESERVATION"


class ReservationIdReused(CallerError):
    reason = "RESERVATION_ID_REUSED"


class ReservationExpired(CallerError):
    reason = "RESERVATION_EXPIRED"


class ReservationCommitted(CallerError):
    reason = "RESERVATION_COMMITTED"


class ReservationReleased(CallerError):
    reason = "RESERVATION_RELEASED"


class ReservationSuperseded(CallerError):
    reason = "RESERVATION_SUPERSEDED"


class ExceedsHold(CallerError):
    reason = "EXCEEDS_HOLD"


class LifetimeExceeded(CallerError):
    reason = "LIFETIME_EXCEEDED"


class StaleQuantity(CallerError):
    reason = "STALE_QUANTITY"


class NotOwner(CallerError):
    reason = "NOT_OWNER"


class Unauthenticated(CallerError):
    reason = "UNAUTHENTICATED"


class ResumeTokenExpired(CallerError):
    reason = "RESUME_TOKEN_EXPIRED"


class Unimplemented(CallerError):
    reason = "UNIMPLEMENTED"


class LoadError(HoldfastError):
    """The server asks for patience, and changed nothing."""


class Throttled(LoadError):
    reason = "THROTTLED"


class Overloaded(LoadError):
    reason = "OVERLOADED"


class Draining(LoadError):
    reason = "DRAINING"


class SlowConsumer(LoadError):
    reason = "SLOW_CONSUMER"


class StoreFault(HoldfastError):
    """The store failed."""


class StoreUnavailable(StoreFault):
    reason = "STORE_UNAVAILABLE"


class Fenced(StoreUnavailable):
    """Another one leads by now: nothing was changed."""


class OutcomeUnknown(StoreFault):
    reason = "OUTCOME_UNKNOWN"


def leaves(root: type[HoldfastError] = HoldfastError) -> Iterator[type[HoldfastError]]:
    """Yield every error that can be raised: the classes that carry a reason of their own."""
    for child in root.__subclasses__():
        if "reason" in vars(child):
            yield child
        yield from leaves(child)


_ENDED = {
    Code.RESERVATION_EXPIRED: (ReservationExpired, "expired"),
    Code.RESERVATION_COMMITTED: (ReservationCommitted, "is already committed"),
    Code.RESERVATION_RELEASED: (ReservationReleased, "is already released"),
    Code.RESERVATION_SUPERSEDED: (ReservationSuperseded, "was replaced by another"),
}


def _ended(outcome: Outcome) -> HoldfastError:
    error, words = _ENDED[Code(outcome.code)]
    record = outcome.reservation
    if record is None:
        return error(f"the reservation {words}")
    metadata = {
        "reservation_id": record.reservation_id,
        "ended_at_ms": str(record.ended_ms),
        "sequence": str(record.sequence),
    }
    if record.order_ref:
        metadata["order_ref"] = record.order_ref
    if record.replaced_by:
        metadata["replaced_by"] = record.replaced_by
    return error(f"reservation {record.reservation_id} {words}", metadata=metadata)


def _unknown_skus(skus: tuple[str, ...]) -> HoldfastError:
    names = ", ".join(skus[:10])
    return UnknownSku(f"no such SKU: {names}", metadata={"skus": names})


def _excess(detail: tuple[str, str, int, int]) -> HoldfastError:
    sku, location, wanted, held = detail
    metadata = {"sku": sku, "location": location, "requested": str(wanted), "held": str(held)}
    return ExceedsHold(f"{wanted} of {sku} asked, {held} held", metadata=metadata)


def _outlived(latest_ms: float) -> HoldfastError:
    metadata = {"expires_at_most_ms": f"{latest_ms:.0f}"}
    return LifetimeExceeded("the hold would outlive hold_lifetime_max", metadata=metadata)


def _stale(on_hand: int) -> HoldfastError:
    words = f"on_hand is {on_hand}, not what was expected"
    return StaleQuantity(words, metadata={"on_hand": str(on_hand)})


def _unknown_reservation(name: str) -> HoldfastError:
    return UnknownReservation(f"no such reservation: {name}", metadata={"reservation_id": name})


def _reused(name: str) -> HoldfastError:
    words = f"id {name} was used before with another payload"
    return ReservationIdReused(words, metadata={"id": name})


def not_owner(name: str) -> HoldfastError:
    """Return the error of who asks for what is another's."""
    return NotOwner(f"{name} belongs to another principal", metadata={"id": name})


_OF_DETAIL: dict[Code, Callable[[Any], HoldfastError]] = {
    Code.INVALID: InvalidArgument.of,
    Code.UNKNOWN_SKU: _unknown_skus,
    Code.UNKNOWN_RESERVATION: _unknown_reservation,
    Code.RESERVATION_ID_REUSED: _reused,
    Code.EXCEEDS_HOLD: _excess,
    Code.LIFETIME_EXCEEDED: _outlived,
    Code.STALE_QUANTITY: _stale,
    Code.NOT_OWNER: not_owner,
}


def error_of(outcome: Outcome) -> HoldfastError:
    """Return the error for an outcome whose code is one of the caller's errors."""
    build = _OF_DETAIL.get(Code(outcome.code))
    return build(outcome.detail) if build else _ended(outcome)
