"""One watch as a state machine, without transport: messages in, changes out.

It keeps the chain and the token.  What a message says is taken as a whole or not at all, and only
the token of a complete message is progress.  Parts of a snapshot are held back until the last has
come, so that neither the levels nor the token are ever those of half a snapshot.
"""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

from holdfast.changes import (
    Change,
    LagCause,
    Lagging,
    Resumed,
    Resynced,
    ResyncReason,
    ServerLoad,
    StockChanges,
)
from holdfast.errors import HoldfastError
from holdfast.levels import Feed, KnownLevels, Seen
from holdfast.responses import level_of, load_of, min_interval_of
from holdfast.retry import RetryPolicy
from holdfast.v1 import stock_pb2 as pb

HEARTBEAT_DEFAULT_S = 5.0
HEARTBEATS_MISSED_MAX = 3
PLANNED_PAUSE_MAX_S = 0.1
END_GRACE_S = 1.0  # how long a server that has said END may take to end the stream
SHORT_S = 1.0  # streams that end so soon, one after another, are opened ever more slowly

_SNAPSHOT, _CHANGES, _HEARTBEAT, _END = (
    pb.WATCH_KIND_SNAPSHOT,
    pb.WATCH_KIND_CHANGES,
    pb.WATCH_KIND_HEARTBEAT,
    pb.WATCH_KIND_END,
)
_CAUSES = {cause.value: cause for cause in LagCause}
_END_CAUSES = {
    number: _CAUSES.get(name.removeprefix("WATCH_END_REASON_"), LagCause.DISCONNECTED)
    for name, number in pb.WatchEndReason.items()
}
_PLANNED = frozenset({LagCause.DRAINING, LagCause.MAX_AGE})


class ChainBroken(Exception):
    """A message that does not follow from those before it."""


class Following:
    """What one watch has been told, and from where it goes on.

    Open a stream with `opened`, `take` each of its messages, tell that it `broke`, wait for `pause`
    seconds, and open the next one.
    """

    def __init__(self, request: pb.WatchRequest, known: KnownLevels, policy: RetryPolicy) -> None:
        self._request = request
        self._wanted = frozenset(request.skus)
        self._known = known
        self._policy = policy
        self.feed = Feed()
        self.token = request.resume_token
        self.through: int | None = None  # None: not told yet
        self.missing: tuple[str, ...] = ()
        self.load = ServerLoad.NORMAL
        self.violations = 0
        self.pause = 0.0
        self.end: LagCause | None = None  # why the server said that it closes this stream
        self._parts: dict[str, Seen] | None = None  # of a snapshot that is not complete
        self._conflated = 0  # in those parts
        self._has_seen = bool(self.token)
        self._epoch_is_over = False
        self._restart_reason = ResyncReason.GAP
        self._heard_at = datetime.now(UTC)
        self._opened_at = 0.0
        self._has_told = False  # anything in this stream
        self._attempt = 0  # 0: not cut off
        self._short_streams = 0  # one after another

    @property
    def patience(self) -> float:
        """How many seconds without a message mean that the stream is dead."""
        if self.end is not None:
            return END_GRACE_S
        given = self._request.heartbeat.seconds + self._request.heartbeat.nanos / 1e9
        return HEARTBEATS_MISSED_MAX * (given or HEARTBEAT_DEFAULT_S)

    def opened(self) -> pb.WatchRequest:
        """Return what the next stream is opened with."""
        self._opened_at = time.monotonic()
        self._request.resume_token = self.token
        return self._request

    def take(self, message: pb.WatchResponse) -> list[Change]:
        """Return what a message tells.  Raises ChainBroken, and then it has told nothing."""
        self._verify(message)
        seen = self._verified_levels(message)
        self._heard_at = datetime.now(UTC)
        self.load = load_of(message.server_pressure)
        self._known.note_load(self.load, min_interval_of(message.server_pressure))
        if message.kind == _SNAPSHOT:
            return self._take_part(message, seen)
        if message.kind == _END:
            self._take_end(message)
            return []
        return self._take_changes(message, seen)

    def broke(self, cause: LagCause, error: HoldfastError | None = None, said: str = "") -> Lagging:
        """Note that the stream ended; what the server said of its end comes before `cause`."""
        if cause is LagCause.CHAIN_BROKEN:
            self.violations += 1
        else:
            cause = self.end or _CAUSES.get(error.reason if error else "", cause)
        is_short = time.monotonic() - self._opened_at < SHORT_S
        self._short_streams = self._short_streams + 1 if is_short else 0
        self._attempt += 1
        failures = max(self._attempt, self._short_streams)
        if cause in _PLANNED and self.end and failures == 1:
            self.pause = random.uniform(0, min(PLANNED_PAUSE_MAX_S, self._policy.backoff_min))
        else:
            retry_after = error.retry_after if error else 0.0
            self.pause = retry_after + self._policy.full_jitter(failures)
        self.end, self._parts, self._conflated, self._has_told = None, None, 0, False
        self.feed.is_live = False
        return Lagging(cause, self._attempt, self._heard_at, said or str(error or cause))

    # ---- The chain ----

    def _verify(self, message: pb.WatchResponse) -> None:
        origin, through, kind = message.from_sequence, message.through_sequence, message.kind
        if self.end is not None:
            raise ChainBroken("a message after the END")
        if kind not in (_SNAPSHOT, _CHANGES, _HEARTBEAT, _END):
            raise ChainBroken(f"a message of kind {kind}")
        if through < origin:
            raise ChainBroken(f"from {origin} back to {through}")
        if kind in (_HEARTBEAT, _END) and message.levels:
            raise ChainBroken("levels in a message that has none")
        if kind == _SNAPSHOT and origin:
            raise ChainBroken(f"a snapshot from {origin}")
        if kind != _SNAPSHOT:
            self._verify_link(message)

    def _verify_link(self, message: pb.WatchResponse) -> None:
        origin, is_end = message.from_sequence, message.kind == _END
        if self._parts is not None:
            if not is_end:
                raise ChainBroken("a snapshot without its last part")
        elif self.through is None:
            if not (self.token or is_end):
                raise ChainBroken("no snapshot in the beginning")
        elif origin != self.through:
            raise ChainBroken(f"from {origin}, but told through {self.through}")

    def _verified_levels(self, message: pb.WatchResponse) -> dict[str, Seen]:
        now = time.monotonic()
        seen: dict[str, Seen] = {}
        before = self._parts if message.kind == _SNAPSHOT else self.feed.seen
        for one in message.levels:
            level = level_of(one)
            if level.sku in seen:
                raise ChainBroken(f"{level.sku} twice")
            if self._wanted and level.sku not in self._wanted:
                raise ChainBroken(f"{level.sku} is not watched")
            known = before.get(level.sku) if before else None
            if known and level.revision < known[0].revision:
                raise ChainBroken(f"{level.sku} back from {known[0].revision} to {level.revision}")
            seen[level.sku] = (level, now)
        return seen

    # ---- What a message tells ----

    def _take_part(self, message: pb.WatchResponse, seen: dict[str, Seen]) -> list[Change]:
        if self._parts is None:
            self._parts = {}
            # Within a stream nothing but a new epoch starts the chain anew.
            is_new = self._epoch_is_over or self._has_told
            self._restart_reason = ResyncReason.EPOCH_CHANGED if is_new else ResyncReason.GAP
            self.feed.is_live = False
        self._parts.update(seen)
        self._conflated += message.conflated_count
        # Only of an empty ledger is a snapshot complete at 0, and then it has no levels.
        if not message.through_sequence and message.levels:
            return []
        self.missing = tuple(message.missing_skus)
        self.feed.seen, self._parts = self._parts, None
        return self._take_snapshot(message)

    def _take_snapshot(self, message: pb.WatchResponse) -> list[Change]:
        through, restarts = message.through_sequence, self._has_seen
        conflated, self._conflated = self._conflated, 0
        self._has_seen, self._epoch_is_over = True, False
        marks = self._progress(message)
        if restarts:
            self._known.forget_answers()
            marks = [Resynced(self._restart_reason, through, self.missing)]
        told = tuple(level for level, _ in self.feed.seen.values())
        return [*marks, StockChanges(told, through, True, conflated, self.missing, self.load)]

    def _take_changes(self, message: pb.WatchResponse, seen: dict[str, Seen]) -> list[Change]:
        if message.missing_skus:
            self.missing = tuple(message.missing_skus)
        if self.missing:
            self.missing = tuple(sku for sku in self.missing if sku not in seen)
        self.feed.seen.update(seen)
        self._has_seen = True
        marks = self._progress(message)
        if message.kind == _HEARTBEAT:
            return marks
        told = tuple(level for level, _ in seen.values())
        through, conflated = message.through_sequence, message.conflated_count
        return [*marks, StockChanges(told, through, False, conflated, self.missing, self.load)]

    def _take_end(self, message: pb.WatchResponse) -> None:
        self.end = _END_CAUSES.get(message.end_reason, LagCause.DISCONNECTED)
        self._epoch_is_over |= self.end is LagCause.EPOCH_CHANGED
        if self._parts is None and self.through is not None:
            self.through = message.through_sequence
            self.token = message.resume_token or self.token

    def _progress(self, message: pb.WatchResponse) -> list[Change]:
        """Go on from here; return the mark of a watch that was cut off and is not any more."""
        self.through = message.through_sequence
        self.token = message.resume_token or self.token
        self._has_told = self.feed.is_live = True
        is_back, self._attempt = self._attempt > 0, 0
        return [Resumed(self.through)] if is_back else []
