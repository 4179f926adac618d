"""What a watch yields: levels, and markers for all that is not a level.

A watch that is cut off yields a Lagging, one more for each attempt that fails, and then exactly one
Resumed, if nothing was missed, or Resynced, if the levels had to be told anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Literal, NamedTuple, TypeAlias, TypedDict

from holdfast.model import Levels, Seconds, StockLevel


class OnGap(StrEnum):
    """What a watch does when the levels since its resume token cannot be told any more."""

    UNSPECIFIED = "UNSPECIFIED"  # as RESYNC
    RESYNC = "RESYNC"  # start anew, visibly
    FAIL = "FAIL"  # raise ResumeTokenExpired


class WatchOptions(TypedDict, total=False):
    """What a watch may be told besides its SKUs and where to resume."""

    on_gap: OnGap | Literal["RESYNC", "FAIL"]  # default RESYNC
    min_interval: Seconds | None  # shortest time between two changes, up to 60 s; default 0
    heartbeat: Seconds | None  # longest silence of the server, 1 s to 60 s; default 5 s


class ServerLoad(StrEnum):
    """How loaded the server itself is; UNSPECIFIED is as NORMAL."""

    UNSPECIFIED = "UNSPECIFIED"
    NORMAL = "NORMAL"
    HIGH = "HIGH"
    OVERLOADED = "OVERLOADED"


class ResyncReason(StrEnum):
    """Why levels are told anew."""

    GAP = "GAP"  # the token was too old, or not of this ledger
    EPOCH_CHANGED = "EPOCH_CHANGED"  # what was seen may have been lost by the server


class LagCause(StrEnum):
    """Why a watch is cut off: what the client noticed, or what the server said."""

    DISCONNECTED = "DISCONNECTED"  # the stream broke, or none could be opened
    SILENT = "SILENT"  # not even a heartbeat came for three of them
    CHAIN_BROKEN = "CHAIN_BROKEN"  # a message did not follow from those before it
    DRAINING = "DRAINING"
    MAX_AGE = "MAX_AGE"
    EPOCH_CHANGED = "EPOCH_CHANGED"
    SLOW_CONSUMER = "SLOW_CONSUMER"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    OVERLOADED = "OVERLOADED"
    THROTTLED = "THROTTLED"
    INTERNAL = "INTERNAL"


class StockChanges(NamedTuple):
    """Levels that changed, each SKU once; with `is_snapshot` those of all watched items.

    They are absolute: `conflated_count` levels were merged into these, which loses nothing.  What
    is watched is complete up to `through_sequence` of the ledger; where that did not move, more of
    the same change follows, or only pressure and advice have changed, with time.  `missing_skus`
    are watched and do not exist yet.  `load` is how loaded the server says it is.
    """

    levels: Levels
    through_sequence: int
    is_snapshot: bool
    conflated_count: int
    missing_skus: tuple[str, ...]
    load: ServerLoad

    @property
    def by_sku(self) -> Mapping[str, StockLevel]:
        """The levels, by SKU."""
        return {level.sku: level for level in self.levels}


class Resynced(NamedTuple):
    """Forget all levels seen: the snapshot that comes next has those of now.

    Changes in between may have been missed, and with EPOCH_CHANGED some that were seen undone.
    """

    reason: ResyncReason
    through_sequence: int
    missing_skus: tuple[str, ...]


class Resumed(NamedTuple):
    """The watch goes on after a Lagging, and nothing was missed."""

    through_sequence: int


class Lagging(NamedTuple):
    """The watch is cut off, and the client is opening a new stream: levels may be out of date.

    `attempt` is the number of the coming attempt, from 1.  `since` is when the server was last
    heard, by the clock of this machine, and `message` says more than the cause, for logs.
    """

    cause: LagCause
    attempt: int
    since: datetime
    message: str


Change: TypeAlias = StockChanges | Resynced | Resumed | Lagging
