"""Holds as blocks of threads.

A thread extends the hold at a third of its ttl, so that two attempts may fail before it runs
out, and stops when the server says that there is nothing more to extend.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from holdfast.errors import HoldfastError
from holdfast.hold import IN_DOUBT, RELEASE_TIMEOUT_S, HeldUnits
from holdfast.model import CommitOptions, Committed, Lines, Released, ReserveOptions

if TYPE_CHECKING:
    from holdfast.sync.client import Client


class Hold(HeldUnits):
    """Units that stay held while the block runs; see `Client.hold`.

    `reservation` is the record as last answered, `levels` what the reserve saw, and
    `extension_error` what ended the extensions, None while they go on.
    """

    def __init__(
        self,
        client: Client,
        lines: Lines,
        timeout: float | None,
        options: ReserveOptions,
        *,
        urgent: bool = False,
    ) -> None:
        super().__init__(lines, timeout, options, urgent=urgent)
        self._client = client
        self._stopping = threading.Event()
        self._extending = threading.Thread(target=self._extend, name="holdfast-hold", daemon=True)

    def commit(
        self, lines: Lines = (), *, timeout: float | None = None, **options: Unpack[CommitOptions]
    ) -> Committed:
        """Turn the hold, or part of it, into a sale; see `AsyncHold.commit`."""
        answer = self._client.commit(self.reservation_id, lines, timeout=timeout, **options)
        self._note(answer.reservation)
        return answer

    def release(self, lines: Lines = (), *, timeout: float | None = None) -> Released:
        """Give the hold, or part of it, back before the block ends."""
        answer = self._client.release(self.reservation_id, lines, timeout=timeout)
        self._note(answer.reservation)
        return answer

    def __enter__(self) -> Self:
        try:
            self._begin(
                self._client.reserve(
                    self._lines, timeout=self._timeout, urgent=self._urgent, **self._options
                )
            )
        except IN_DOUBT:
            self._give_back()
            raise
        self._extending.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        if not self._has_ended:
            self._give_back()
        self._extending.join()

    def _extend(self) -> None:
        while not self._stopping.wait(self._pause()) and not self._has_ended:
            try:
                answer = self._client.extend(self.reservation_id, self._ttl, timeout=self._timeout)
                self._note(answer.reservation)
            except HoldfastError as error:
                if not self._goes_on_after(error):
                    return

    def _give_back(self) -> None:
        with suppress(HoldfastError):
            self.release(timeout=RELEASE_TIMEOUT_S)
