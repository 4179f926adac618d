"""Everything that can go wrong, as one tree.

    HoldfastError
    +-- Refused                     the answer is no; nothing changed
    |   +-- OutOfStock, StockChanged, ChannelQuotaExceeded, HoldBudgetExceeded, StockLost
    +-- CallerError                 the call as it stands can never succeed; nothing changed
    |   +-- InvalidArgument         names each field and its limit
    |   +-- UnknownSku, UnknownReservation, ReservationIdReused
    |   +-- ReservationEnded
    |   |   +-- ReservationExpired, ReservationCommitted, ReservationReleased, ReservationSuperseded
    |   +-- ExceedsHold, LifetimeExceeded, StaleQuantity
    |   +-- NotOwner, Unauthenticated
    |   +-- ResumeTokenExpired, Unimplemented
    +-- LoadError                   the server asks for patience; nothing changed
    |   +-- Throttled, Overloaded, Draining, SlowConsumer
    +-- StoreFault                  the server's store failed
    |   +-- StoreUnavailable        nothing was written
    |   +-- OutcomeUnknown          the call may have taken effect
    +-- InternalError               a fault of the server; the call may have taken effect
    +-- TransportError              no answer from the server; the call may have taken effect
    |   +-- DeadlineExceeded        (also a TimeoutError)
    |   +-- Unreachable             (also a ConnectionError)
    +-- ClientClosed                the client was closed before the answer came

Where a call may have taken effect, make it again with the id in `idempotency_key`: that is safe.
The client has already done so a few times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from holdfast.model import RefusedLine, StockLevel, Violation
from holdfast.said import number, text, texts, time


class HoldfastError(Exception):
    """Root of the tree, and the type of an error whose reason this version does not know.

    `reason` is the server's word for it, empty where the server said nothing, and `metadata` what
    it said with it.  `retry_after` is how many seconds to wait before the next attempt, 0.0 where
    the server named none.  `idempotency_key` is the reservation_id or request_id of the call that
    failed, also where the client made it; empty for a read.
    """

    reason: str = ""

    def __init__(
        self, message: str, *, metadata: Mapping[str, str] | None = None, retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.idempotency_key = ""


Error = TypeVar("Error", bound=HoldfastError)


class Refused(HoldfastError):
    """The answer is no, and nothing changed.

    `lines` are those that could not be had, `levels` what the server saw of every item of the
    call, with its advice, and `sequence` the end of the ledger at that moment.  `is_local` says
    that this client's pacing refused, by the levels it knows, and asked nobody: `sequence` is 0.
    """

    lines: Sequence[RefusedLine] = ()
    levels: Sequence[StockLevel] = ()
    sequence: int = 0
    is_local: bool = False


class OutOfStock(Refused):
    """Fewer units are available than were asked for."""

    reason = "OUT_OF_STOCK"


class StockChanged(Refused):
    """An item of the call changed after if_sequence: look at the levels, and decide again."""

    reason = "STOCK_CHANGED"


class ChannelQuotaExceeded(Refused):
    """The channel has used up its quota of an item; `available` is what is left of it."""

    reason = "CHANNEL_QUOTA"


class HoldBudgetExceeded(Refused):
    """The principal would hold more than it may; `available` is what it may still hold."""

    reason = "HOLD_BUDGET"


class StockLost(Refused):
    """A recount took the units of this hold away."""

    reason = "STOCK_LOST"


class CallerError(HoldfastError):
    """The call as it stands can never succeed, and changed nothing."""


class InvalidArgument(CallerError):
    """Some arguments are outside their limits; `violations` names each."""

    reason = "INVALID_ARGUMENT"
    violations: Sequence[Violation] = ()


class UnknownSku(CallerError):
    """There is no such item."""

    reason = "UNKNOWN_SKU"

    skus = texts("skus")  # those that do not exist, the first ten


class UnknownReservation(CallerError):
    """There is no such reservation, or it is no longer retained."""

    reason = "UNKNOWN_RESERVATION"

    reservation_id = text("reservation_id")  # the id that was asked for


class ReservationIdReused(CallerError):
    """The id, of a reservation or a request, was used before with another payload."""

    reason = "RESERVATION_ID_REUSED"

    id = text("id")


class ReservationEnded(CallerError):
    """The reservation has ended, otherwise than the call asks for."""

    reservation_id = text("reservation_id")
    ended_at = time("ended_at_ms")
    sequence = number("sequence")  # ledger sequence of its end


class ReservationExpired(ReservationEnded):
    """The hold ran out: reserve anew."""

    reason = "RESERVATION_EXPIRED"


class ReservationCommitted(ReservationEnded):
    """The reservation is sold already, or with other lines than these."""

    reason = "RESERVATION_COMMITTED"

    order_ref = text("order_ref")  # the order it was sold for


class ReservationReleased(ReservationEnded):
    """The reservation was given back: reserve anew."""

    reason = "RESERVATION_RELEASED"


class ReservationSuperseded(ReservationEnded):
    """Another reservation took the place of this one."""

    reason = "RESERVATION_SUPERSEDED"

    replaced_by = text("replaced_by")  # the reservation to use instead


class ExceedsHold(CallerError):
    """More units, or other lines, than the reservation has."""

    reason = "EXCEEDS_HOLD"

    sku = text("sku")
    location = text("location")
    requested = number("requested")  # units asked for
    held = number("held")  # units the reservation has of them


class LifetimeExceeded(CallerError):
    """The hold would outlive the hold_lifetime_max of its items."""

    reason = "LIFETIME_EXCEEDED"

    expires_at_most = time("expires_at_most_ms")  # the latest expiry the hold can be given


class StaleQuantity(CallerError):
    """The count is not the one that was expected: read it, and decide again."""

    reason = "STALE_QUANTITY"

    on_hand = number("on_hand")  # the count now


class NotOwner(CallerError):
    """The reservation is another principal's, or this principal may not make the call."""

    reason = "NOT_OWNER"


class Unauthenticated(CallerError):
    """There were no credentials, or bad ones."""

    reason = "UNAUTHENTICATED"


class ResumeTokenExpired(CallerError):
    """The ledger cannot be followed from there any more: start anew."""

    reason = "RESUME_TOKEN_EXPIRED"


class Unimplemented(CallerError):
    """This server does not serve the call, or the part of it that was asked for."""

    reason = "UNIMPLEMENTED"


class LoadError(HoldfastError):
    """The server asks for patience, and changed nothing: wait for `retry_after` seconds."""


class Throttled(LoadError):
    """The caller is over its rate."""

    reason = "THROTTLED"


class Overloaded(LoadError):
    """The server sheds load."""

    reason = "OVERLOADED"


class Draining(LoadError):
    """The server is stopping."""

    reason = "DRAINING"


class SlowConsumer(LoadError):
    """The reader of a stream took nothing for too long."""

    reason = "SLOW_CONSUMER"

    resume_token = text("resume_token")  # where to resume


class StoreFault(HoldfastError):
    """The server's store failed."""


class StoreUnavailable(StoreFault):
    """The store is down, and nothing was written."""

    reason = "STORE_UNAVAILABLE"


class OutcomeUnknown(StoreFault):
    """The store's answer was lost: the call may have taken effect."""

    reason = "OUTCOME_UNKNOWN"


class InternalError(HoldfastError):
    """A fault of the server: the call may have taken effect."""

    reason = "INTERNAL"


class TransportError(HoldfastError):
    """No answer came from the server: the call may have taken effect."""


class DeadlineExceeded(TransportError, TimeoutError):
    """No answer came in time."""


class Unreachable(TransportError, ConnectionError):
    """The server could not be reached, or the connection broke."""


class ClientClosed(HoldfastError):
    """The client was closed before the answer came, or before the call."""


def leaves(root: type[Error]) -> Iterator[type[Error]]:
    """Yield every error below `root` that stands for a reason of the server."""
    for child in root.__subclasses__():
        if child.reason:
            yield child
        yield from leaves(child)
