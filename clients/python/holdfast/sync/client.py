"""The client for threads."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Event
from typing import Unpack
from weakref import WeakSet

from holdfast import requests, responses
from holdfast.changes import WatchOptions
from holdfast.channel import ClientOptions
from holdfast.errors import ClientClosed, Refused
from holdfast.model import (
    CommitOptions,
    Committed,
    Context,
    Extended,
    Lines,
    Released,
    Reservation,
    Reserved,
    ReserveOptions,
    Seconds,
    Stock,
)
from holdfast.pacing import Pacer, PacingPolicy
from holdfast.sync.hold import Hold
from holdfast.sync.inventory import Inventory
from holdfast.sync.ledger import Ledger
from holdfast.sync.watch import Watch
from holdfast.v1 import stock_pb2 as pb
from holdfast.watching import Following


class Client(Inventory, Ledger):
    """A client for threads, which may share it.

        with Client("127.0.0.1:7420") as client:
            with client.hold([("SKU-1", 2)], ttl=30) as hold:
                pay()
                hold.commit(order_ref="order-7")

    Every call has a deadline, carries an id before it is first sent, and is repeated with it when
    the server is away for a moment.  A client belongs to one process.

    `pacing` makes reserves heed the advice of the server, such as `Pacing()`; it may be set later.

    Each call raises the HoldfastError that its answer stands for, and DeadlineExceeded,
    Unreachable or ClientClosed without an answer; besides these, what its docstring names.
    """

    def __init__(
        self,
        target: str = "",
        *,
        pacing: PacingPolicy | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(target, **options)
        self.pacing = pacing
        self._pacer = Pacer(self._known)
        self._closing = Event()
        self._watches: WeakSet[Watch] = WeakSet()

    def close(self) -> None:
        """Close the connection; calls that wait raise ClientClosed."""
        self._closing.set()
        with self._opening:
            watches = list(self._watches)
        for watch in watches:
            watch.close(ClientClosed("the client was closed"))
        super().close()

    def reserve(
        self,
        lines: Lines,
        *,
        timeout: float | None = None,
        urgent: bool = False,
        **options: Unpack[ReserveOptions],
    ) -> Reserved:
        """Hold units for a while, all lines or none.

        Atomic, and idempotent by `reservation_id`.  With `urgent` the client's pacing does not
        delay it.

        Raises OutOfStock, StockChanged, ChannelQuotaExceeded, HoldBudgetExceeded, UnknownSku,
        InvalidArgument, ReservationIdReused; and for `replaces` UnknownReservation, NotOwner,
        ReservationCommitted, ReservationSuperseded.
        """
        if self.pacing is not None:
            plan = self._pacer.plan(self.pacing, lines, options, urgent=urgent)
            timeout = self._connection.timeout if timeout is None else timeout
            delay = min(plan.delay, timeout / 2)
            if delay > 0:
                self._closing.wait(delay)
            lines, timeout = plan.lines, timeout - delay
        request = requests.reserve_request(lines, **options)
        answer = self._call(self.stubs.stock.Reserve, request, timeout)
        try:
            return self._known.learn(responses.reserved_of, answer, request.reservation_id)
        except Refused:
            self._pacer.forget(request.reservation_id)
            raise

    def commit(
        self,
        reservation_id: str,
        lines: Lines = (),
        *,
        timeout: float | None = None,
        **options: Unpack[CommitOptions],
    ) -> Committed:
        """Turn a hold, or the given lines of it, into a sale; the rest is given back.

        Atomic, and safe to repeat.  After the expiry the late_commit policy of the items decides.

        Raises StockChanged, StockLost, UnknownReservation, NotOwner, ExceedsHold,
        ReservationExpired, ReservationReleased, ReservationSuperseded, ReservationCommitted.
        """
        request = requests.commit_request(reservation_id, lines, **options)
        answer = self._call(self.stubs.stock.Commit, request, timeout)
        return self._known.learn(responses.committed_of, answer, reservation_id)

    def release(
        self,
        reservation_id: str,
        lines: Lines = (),
        *,
        context: Context | None = None,
        timeout: float | None = None,
    ) -> Released:
        """Give a hold, or the given lines of it, back.

        Atomic, and safe to repeat.

        Raises UnknownReservation, NotOwner, ExceedsHold, ReservationCommitted,
        ReservationReleased (other lines), ReservationSuperseded, ReservationExpired.
        """
        request = requests.release_request(reservation_id, lines, context)
        answer = self._call(self.stubs.stock.Release, request, timeout)
        return self._known.learn(responses.released_of, answer)

    def extend(
        self,
        reservation_id: str,
        ttl: Seconds,
        *,
        context: Context | None = None,
        timeout: float | None = None,
    ) -> Extended:
        """Let a hold expire `ttl` from now; it never moves an expiry back.

        Raises LifetimeExceeded, UnknownReservation, NotOwner, InvalidArgument (beyond the items'
        hold_ttl_max), ReservationExpired, ReservationCommitted, ReservationReleased,
        ReservationSuperseded.
        """
        request = requests.extend_request(reservation_id, ttl, context)
        answer = self._call(self.stubs.stock.Extend, request, timeout)
        return responses.extended_of(answer)

    def get_reservation(self, reservation_id: str, *, timeout: float | None = None) -> Reservation:
        """Read a reservation, also after it ended.  Raises UnknownReservation, NotOwner."""
        request = pb.GetReservationRequest(reservation_id=reservation_id)
        answer = self._call(self.stubs.stock.GetReservation, request, timeout)
        return responses.reservation_of(answer.reservation)

    def get_stock(
        self,
        skus: str | Iterable[str],
        *,
        context: Context | None = None,
        timeout: float | None = None,
    ) -> Stock:
        """Read the levels of up to 1,000 items, all as of one moment.

        An unknown SKU is in `missing_skus`, and no error.
        """
        request = requests.get_stock_request(skus, context)
        answer = self._call(self.stubs.stock.GetStock, request, timeout)
        return self._known.learn(responses.stock_of, answer)

    def hold(
        self,
        lines: Lines,
        *,
        timeout: float | None = None,
        urgent: bool = False,
        **options: Unpack[ReserveOptions],
    ) -> Hold:
        """Return a block that holds units while it runs.

        Entering it reserves, and raises what `reserve` raises.  The hold is extended until the
        block ends or its lifetime is used up, so `ttl` is how long the units stay held when this
        process dies.  However the block is left, units that were not committed are given back.
        """
        return Hold(self, lines, timeout, options, urgent=urgent)

    def watch(
        self,
        skus: str | Iterable[str] = (),
        *,
        resume_token: str = "",
        **options: Unpack[WatchOptions],
    ) -> Watch:
        """Follow the levels of some items, or of all.

        Yields StockChanges, and where there is anything else to know a Lagging, Resumed or
        Resynced.  It proves by their chain that no message is missing, and goes on by itself after
        every failure, for as long as it is not closed; it has no deadline.  Whoever reads slowly
        gets merged changes.  `resume_token` is that of an earlier watch of the same SKUs.

        Iterating raises what no further attempt would change: InvalidArgument, Unauthenticated,
        NotOwner, Unimplemented, ResumeTokenExpired with on_gap FAIL; and ClientClosed.
        """
        request = requests.watch_request(skus, resume_token=resume_token, **options)
        watch = Watch(
            Following(request, self._known, self._connection.policy),
            self._known,
            lambda opening: self.stubs.stock.Watch(opening, metadata=self.metadata),
            self._connection.connect_timeout,
        )
        with self._opening:
            self._watches.add(watch)
        return watch
