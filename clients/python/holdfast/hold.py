"""What the holds of both clients know; they themselves are in `aio.hold` and `sync.hold`."""

from __future__ import annotations

import random
from datetime import timedelta
from threading import Lock

from holdfast.errors import (
    CallerError,
    HoldfastError,
    InternalError,
    OutcomeUnknown,
    TransportError,
)
from holdfast.model import (
    Levels,
    Lines,
    Reservation,
    Reserved,
    ReserveOptions,
    Seconds,
)
from holdfast.requests import new_id

RELEASE_TIMEOUT_S = 2.0
# After these a reserve may have taken effect although it failed.
IN_DOUBT = (TransportError, OutcomeUnknown, InternalError)


class HeldUnits:
    """The reservation of a hold as last answered, and how to extend it."""

    reservation: Reservation
    levels: Levels = ()
    extension_error: HoldfastError | None = None

    def __init__(
        self, lines: Lines, timeout: float | None, options: ReserveOptions, *, urgent: bool
    ) -> None:
        self._lines = lines
        self._urgent = urgent
        self._timeout = timeout
        self._options: ReserveOptions = {**options}
        self.reservation_id = options.get("reservation_id") or new_id()
        self._options["reservation_id"] = self.reservation_id
        self._ttl: Seconds = 0.0
        self._noting = Lock()
        self._sequence = 0
        self._has_ended = False

    def _begin(self, answer: Reserved) -> None:
        self._note(answer.reservation)
        self.levels = answer.levels
        # What is left of it: a replayed reserve may find a hold that has been running.
        left = answer.reservation.expires_at - answer.levels[0].as_of
        self._ttl = self._options.get("ttl") or left

    def _note(self, record: Reservation) -> None:
        """Keep the newest record: answers may overtake each other."""
        with self._noting:
            if record.sequence >= self._sequence:
                self.reservation, self._sequence = record, record.sequence
                self._has_ended = record.ended_at is not None

    def _pause(self) -> float:
        """Return when to extend next: after a third of the ttl, so that two attempts may fail."""
        ttl = self._ttl.total_seconds() if isinstance(self._ttl, timedelta) else self._ttl
        return ttl / 3 * random.uniform(0.9, 1.1)

    def _goes_on_after(self, error: HoldfastError) -> bool:
        """Note why extending failed; tell whether to try again."""
        if isinstance(error, CallerError) and not self._has_ended:
            self.extension_error = error
        return not isinstance(error, CallerError)
