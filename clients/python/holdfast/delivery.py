"""Changes on their way from a stream to whoever iterates over the watch; shared by both clients."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from google.rpc.status_pb2 import Status
from grpc import StatusCode

from holdfast.changes import Change, Lagging
from holdfast.errors import CallerError, HoldfastError
from holdfast.status import error_of

UNDELIVERED_MAX = 8  # changes; then the stream is not read, and the server merges what is to come

BROKEN = Status(code=StatusCode.UNAVAILABLE.value[0], message="the stream ended")
# Codes without a reason of ours that no further attempt changes.
_FINAL = frozenset(
    code.value[0]
    for code in (
        StatusCode.INVALID_ARGUMENT,
        StatusCode.NOT_FOUND,
        StatusCode.PERMISSION_DENIED,
        StatusCode.UNAUTHENTICATED,
        StatusCode.UNIMPLEMENTED,
    )
)


def passing_error_of(status: Status) -> HoldfastError:
    """Return the error a stream ended with.  Raises it, if opening another would end alike."""
    error = error_of(status)
    if isinstance(error, CallerError) or (not error.reason and status.code in _FINAL):
        raise error
    return error


class Outbox:
    """Changes that nobody has taken yet, each with the token that holds once it was taken.

    So `token` never covers what was not delivered.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self._waiting: deque[tuple[Change, str]] = deque()

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to take."""
        return not self._waiting

    @property
    def is_full(self) -> bool:
        """Tell whether to read no more for now."""
        return len(self._waiting) >= UNDELIVERED_MAX

    def put(self, changes: Iterable[Change], token: str) -> None:
        """Add what one message told, nothing for a heartbeat, and where to resume after it."""
        held = self._waiting[-1][1] if self._waiting else self.token
        for change in changes:
            newest = self._waiting[-1][0] if self._waiting else None
            if isinstance(change, Lagging) and isinstance(newest, Lagging):
                self._waiting.pop()  # only the newest attempt is news
            self._waiting.append((change, held))
        if self._waiting:
            self._waiting[-1] = (self._waiting[-1][0], token)
        else:
            self.token = token

    def take(self) -> Change:
        """Return the oldest change; what came before it counts as delivered."""
        change, self.token = self._waiting.popleft()
        return change
