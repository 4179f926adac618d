"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Unpack
from weakref import WeakSet

import grpc

from holdfast import requests, responses
from holdfast.aio.calls import Request, Response
from holdfast.aio.coalescing import Coalescer, GoAlone
from holdfast.aio.hold import AsyncHold
from holdfast.aio.inventory import AsyncInventory
from holdfast.aio.ledger import AsyncLedger
from holdfast.aio.watch import AsyncWatch, WatchReader
from holdfast.changes import WatchOptions
from holdfast.channel import ClientOptions
from holdfast.errors import ClientClosed, HoldfastError, Refused
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
from holdfast.v1 import stock_pb2 as pb
from holdfast.watching import Following


class AsyncClient(AsyncInventory, AsyncLedger):
    """A client for asyncio.

        async with AsyncClient("127.0.0.1:7420") as client:
            async with client.hold([("SKU-1", 2)], ttl=30) as hold:
                await pay()
                await hold.commit(order_ref="order-7")

    Every call has a deadline, carries an id before it is first sent, and is repeated with it when
    the server is away for a moment.  Concurrent calls share frames of one stream, unless
    `coalesce` is false.  A client belongs to the event loop of its first call, and to one process.

    `pacing` makes reserves heed the advice of the server, such as `Pacing()`; it may be set later.

    Each call raises the HoldfastError that its answer stands for, and DeadlineExceeded,
    Unreachable or ClientClosed without an answer; besides these, what its docstring names.
    """

    def __init__(
        self,
        target: str = "",
        *,
        coalesce: bool = True,
        pacing: PacingPolicy | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(target, **options)
        self.pacing = pacing
        self._pacer = Pacer(self._known)
        self._coalesce = coalesce
        self._coalescer: Coalescer | None = None
        self._readers: WeakSet[WatchReader] = WeakSet()

    async def aclose(self) -> None:
        """Wait a little for the answers to calls that share a stream, then close."""
        for reader in list(self._readers):
            await reader.aclose(ClientClosed("the client was closed"))
        if self._coalescer is not None:
            await self._coalescer.aclose()
        await super().aclose()

    async def reserve(
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
            timeout = self._seconds(timeout)
            delay = min(plan.delay, timeout / 2)
            if delay > 0:
                await asyncio.sleep(delay)
            lines, timeout = plan.lines, timeout - delay
        request = requests.reserve_request(lines, **options)
        answer = await self._decide(self.stubs.stock.Reserve, "reserve", request, timeout)
        try:
            return self._known.learn(responses.reserved_of, answer, request.reservation_id)
        except Refused:
            self._pacer.forget(request.reservation_id)
            raise

    async def commit(
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
        answer = await self._decide(self.stubs.stock.Commit, "commit", request, timeout)
        return self._known.learn(responses.committed_of, answer, reservation_id)

    async def release(
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
        answer = await self._decide(self.stubs.stock.Release, "release", request, timeout)
        return self._known.learn(responses.released_of, answer)

    async def extend(
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
        answer = await self._decide(self.stubs.stock.Extend, "extend", request, timeout)
        return responses.extended_of(answer)

    async def get_reservation(
        self, reservation_id: str, *, timeout: float | None = None
    ) -> Reservation:
        """Read a reservation, also after it ended.  Raises UnknownReservation, NotOwner."""
        request = pb.GetReservationRequest(reservation_id=reservation_id)
        answer = await self._call(self.stubs.stock.GetReservation, request, timeout)
        return responses.reservation_of(answer.reservation)

    async def get_stock(
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
        answer = await self._decide(self.stubs.stock.GetStock, "get_stock", request, timeout)
        return self._known.learn(responses.stock_of, answer)

    def hold(
        self,
        lines: Lines,
        *,
        timeout: float | None = None,
        urgent: bool = False,
        **options: Unpack[ReserveOptions],
    ) -> AsyncHold:
        """Return a block that holds units while it runs.

        Entering it reserves, and raises what `reserve` raises.  The hold is extended until the
        block ends or its lifetime is used up, so `ttl` is how long the units stay held when this
        process dies.  However the block is left, units that were not committed are given back.
        """
        return AsyncHold(self, lines, timeout, options, urgent=urgent)

    def watch(
        self,
        skus: str | Iterable[str] = (),
        *,
        resume_token: str = "",
        **options: Unpack[WatchOptions],
    ) -> AsyncWatch:
        """Follow the levels of some items, or of all.

        Yields StockChanges, and where there is anything else to know a Lagging, Resumed or
        Resynced.  It proves by their chain that no message is missing, and goes on by itself after
        every failure, for as long as it is not closed; it has no deadline.  Whoever reads slowly
        gets merged changes.  `resume_token` is that of an earlier watch of the same SKUs.

        Iterating raises what no further attempt would change: InvalidArgument, Unauthenticated,
        NotOwner, Unimplemented, ResumeTokenExpired with on_gap FAIL; and ClientClosed.
        """
        request = requests.watch_request(skus, resume_token=resume_token, **options)
        following = Following(request, self._known, self._connection.policy)
        reader = WatchReader(
            following,
            self._known,
            lambda opening: self.stubs.stock.Watch(opening, metadata=self.metadata),
            self._connection.connect_timeout,
        )
        self._readers.add(reader)
        return AsyncWatch(reader)

    async def _decide(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        kind: str,
        request: Request,
        timeout: float | None,
    ) -> Response:
        """Make a call that may share a frame with others."""
        if not self._coalesce:
            return await self._call(method, request, timeout)
        if self._coalescer is None:
            open_stream = self.stubs.stock.Pipeline
            self._coalescer = Coalescer(
                lambda: open_stream(metadata=self.metadata),
                self._connection.policy,
                self._known.note_load,
            )
        try:
            answer: Response = await self._coalescer.execute(kind, request, self._seconds(timeout))
        except GoAlone:
            return await self._call(method, request, timeout)
        except HoldfastError as error:
            error.idempotency_key = requests.key_of(request)
            raise
        return answer
