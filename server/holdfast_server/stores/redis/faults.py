"""What an error reply of the store means: refused before anything ran, or a fault in the script."""

from __future__ import annotations

from collections.abc import Callable

from redis.exceptions import (
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from holdfast_server.errors import StoreUnavailable

RETRY_AFTER_MS = 500

# Refusals that Redis and Valkey give before a script runs: nothing was written.
_BEFORE_START = {
    "MISCONF": "the store cannot write to its disk",
    "NOREPLICAS": "the store has too few replicas",
    "BUSY": "the store is busy with another script",
    "MASTERDOWN": "the store is a replica without a master",
    "CLUSTERDOWN": "the store's cluster is down",
    "UNBLOCKED": "the store changed its role",
}


class ScriptFault(Exception):
    """The script itself failed: it wrote nothing, since it writes last."""


class Rollback(Exception):
    """The store's history is not the one this process knows."""

    def __init__(self, epoch: int, sequence: int) -> None:
        super().__init__(f"the store is at epoch {epoch}, sequence {sequence}")
        self.epoch = epoch
        self.sequence = sequence


class ScriptMissing(Exception):
    """The store does not know the function: nothing ran, so it can be loaded and sent again."""


class MemoryFull(Exception):
    """The store is out of memory: nothing ran."""


def meaning(reply: ResponseError) -> Exception:
    """Return what an error reply means for the batch that got it."""
    text = str(reply)
    for kind, build in _BY_TYPE.items():
        if isinstance(reply, kind):
            return build(text)
    word, _, rest = text.partition(" ")
    if word == "ROLLBACK":
        epoch, _, sequence = rest.partition(" ")
        return Rollback(int(epoch), int(sequence))
    if text == "Function not found":
        return ScriptMissing(text)
    return _unavailable(_BEFORE_START[word]) if word in _BEFORE_START else ScriptFault(text)


def _unavailable(message: str) -> StoreUnavailable:
    return StoreUnavailable(message, retry_after_ms=RETRY_AFTER_MS)


_BY_TYPE: dict[type[ResponseError], Callable[[str], Exception]] = {
    OutOfMemoryError: MemoryFull,
    ReadOnlyError: lambda _text: _unavailable("the store is a read-only replica"),
    NoPermissionError: lambda text: _unavailable(f"the store's user may not: {text}"),
}
