"""Holds as blocks of asyncio.

A task extends the hold at a third of its ttl, so that two attempts may fail before it runs
out, and stops when the server says that there is nothing more to extend.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from holdfast.errors import HoldfastError
from holdfast.hold import IN_DOUBT, RELEASE_TIMEOUT_S, HeldUnits
from holdfast.model import CommitOptions, Committed, Lines, Released, ReserveOptions

if TYPE_CHECKING:
    from holdfast.aio.client import AsyncClient


class AsyncHold(HeldUnits):
    """Units that stay held while the block runs; see `AsyncClient.hold`.

    `reservation` is the record as last answered, `levels` what the reserve saw, and
    `extension_error` what ended the extensions, None while they go on.
    """

    def __init__(
        self,
        client: AsyncClient,
        lines: Lines,
        timeout: float | None,
        options: ReserveOptions,
        *,
        urgent: bool = False,
    ) -> None:
        super().__init__(lines, timeout, options, urgent=urgent)
        self._client = client
        self._extending: asyncio.Task[None] | None = None

    async def commit(
        self, lines: Lines = (), *, timeout: float | None = None, **options: Unpack[CommitOptions]
    ) -> Committed:
        """Turn the hold, or part of it, into a sale; the rest is given back in the same step.

        Raises what `AsyncClient.commit` raises: ReservationExpired, too, if extending failed and
        the hold ran out.  After StockChanged it is still held, and may be committed again.
        """
        answer = await self._client.commit(self.reservation_id, lines, timeout=timeout, **options)
        self._note(answer.reservation)
        return answer

    async def release(self, lines: Lines = (), *, timeout: float | None = None) -> Released:
        """Give the hold, or part of it, back before the block ends."""
        answer = await self._client.release(self.reservation_id, lines, timeout=timeout)
        self._note(answer.reservation)
        return answer

    async def __aenter__(self) -> Self:
        try:
            self._begin(
                await self._client.reserve(
                    self._lines, timeout=self._timeout, urgent=self._urgent, **self._options
                )
            )
        except (asyncio.CancelledError, *IN_DOUBT):
            await self._give_back()
            raise
        self._extending = asyncio.create_task(self._extend(), name="holdfast-hold")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._extending is not None:
            self._extending.cancel()
        if not self._has_ended:
            await self._give_back()

    async def _extend(self) -> None:
        while True:
            await asyncio.sleep(self._pause())
            if self._has_ended:
                return
            try:
                answer = await self._client.extend(
                    self.reservation_id, self._ttl, timeout=self._timeout
                )
                self._note(answer.reservation)
            except HoldfastError as error:
                if not self._goes_on_after(error):
                    return

    async def _give_back(self) -> None:
        """Release even if cancelled meanwhile; what fails is left to the expiry."""
        releasing = asyncio.create_task(self._release_quietly(), name="holdfast-release")
        cancelled: asyncio.CancelledError | None = None
        while not releasing.done():
            try:
                await asyncio.shield(releasing)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled:
            raise cancelled

    async def _release_quietly(self) -> None:
        with suppress(HoldfastError):
            await self.release(timeout=RELEASE_TIMEOUT_S)
