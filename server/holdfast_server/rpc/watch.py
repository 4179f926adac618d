"""Watch: what a watcher has to tell, as messages of bytes that many streams share.

A level is serialised once and the same bytes go to every stream; a message is a head and levels,
one after the other, because protobuf lets the fields of a message be joined so.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple

import grpc

from holdfast.v1 import stock_pb2 as pb
from holdfast_server.engine.load import ServerLoad
from holdfast_server.errors import HoldfastError, ResumeTokenExpired, SlowConsumer, StoreUnavailable
from holdfast_server.ledger.trail import Trail
from holdfast_server.model import Level, Position
from holdfast_server.rpc import messages, tokens
from holdfast_server.rpc.arguments import Arguments
from holdfast_server.rpc.call import READERS, Calls, Context, check_message
from holdfast_server.rpc.watch_notes import WatchNotes
from holdfast_server.watch.hub import Hub
from holdfast_server.watch.watcher import Ending, Pace, Update, UpdateKind, Watcher

SKUS_MAX = 10_000
TOKEN_BYTES_MAX = 1_024
INTERVAL_MS_MAX = 60_000
HEARTBEAT_MS_MIN, HEARTBEAT_MS_DEFAULT = 1_000, 5_000
HEADS_MAX = 256

_GAPS = frozenset({pb.ON_GAP_UNSPECIFIED, pb.ON_GAP_RESYNC, pb.ON_GAP_FAIL})


class Wanted(NamedTuple):
    """What a watch asks for; `token` None to start with a snapshot."""

    skus: tuple[str, ...]
    token: tuple[int, Position] | None
    fails_on_gap: bool
    pace: Pace


def level_field(level: Level, now_ms: int) -> bytes:
    """Return a level as one entry of `levels` in a WatchResponse, tag and size included."""
    return pb.WatchResponse(levels=(messages.level(level, now_ms),)).SerializeToString()


def token_of(cell: int, at: Position) -> str:
    """Return the token to resume after a position."""
    return tokens.make(f"w.{cell}.{at.epoch}.{at.sequence}")


def _read_token(check: Arguments, text: str) -> tuple[int, Position] | None:
    if not text:
        return None
    words = "must be a token of a Watch"
    if len(text) > TOKEN_BYTES_MAX:
        check.bad("resume_token", f"{words}, at most {TOKEN_BYTES_MAX} bytes")
        return None
    kind, *numbers = tokens.read(check, "resume_token", text).split(".")
    is_token = len(numbers) == 3 and all(part.isascii() and part.isdigit() for part in numbers)
    if kind != "w" or not is_token:
        check.bad("resume_token", words)
        return None
    cell, epoch, sequence = map(int, numbers)
    return cell, Position(epoch, sequence)


def wanted(request: pb.WatchRequest) -> Wanted:
    """Return what a request asks for.  Raises InvalidArgument."""
    check = Arguments()
    if len(request.skus) > SKUS_MAX:
        check.bad("skus", f"must number at most {SKUS_MAX}, not {len(request.skus)}")
    else:
        for index, sku in enumerate(request.skus):
            check.sku(f"skus[{index}]", sku)
    token = _read_token(check, request.resume_token)
    if request.on_gap not in _GAPS:
        check.bad("on_gap", "must be RESYNC or FAIL")
    interval_ms, heartbeat_ms = 0, HEARTBEAT_MS_DEFAULT
    if request.HasField("min_interval"):
        interval_ms = check.duration_ms(
            "min_interval", request.min_interval, low=0, high=INTERVAL_MS_MAX
        )
    if request.HasField("heartbeat"):
        heartbeat_ms = check.duration_ms(
            "heartbeat", request.heartbeat, low=HEARTBEAT_MS_MIN, high=INTERVAL_MS_MAX
        )
    check.done()
    skus = tuple(dict.fromkeys(request.skus))
    pace = Pace(interval_ms / 1000, heartbeat_ms / 1000)
    return Wanted(skus, token, request.on_gap == pb.ON_GAP_FAIL, pace)


class Watch:
    """Serves streams of levels."""

    def __init__(self, calls: Calls, hub: Hub, cell: int, trail: Trail | None = None) -> None:
        self._calls = calls
        self._trail = trail
        self._hub = hub
        self._cell = cell
        self._heads: dict[tuple[object, ...], bytes] = {}

    async def serve(self, request: pb.WatchRequest, context: Context) -> None:
        """Tell a reader of the levels it wants, until it leaves or the server ends the stream.

        A stream that its reader leaves, or its connection loses, is cancelled: that always passes.
        """
        async with self._calls.answering("StockServicer.Watch", context):
            caller = self._calls.begin(context, READERS)
            check_message(request)
            asked = wanted(request)
            await self._hub.ready()
            # Or the first write would send it, and after a write that is cut gRPC, which does not
            # know that it went, would fail to send the status.
            await context.send_initial_metadata(())
            with self._hub.watching(asked.skus, asked.pace) as watcher:
                await self._start(watcher, asked)
                notes = WatchNotes(self._trail, watcher, self._hub, caller, asked.skus)
                try:
                    await self._tell(watcher, asked, context, notes)
                finally:
                    notes.end()

    async def _start(self, watcher: Watcher, asked: Wanted) -> None:
        """Put the watcher where its token says, or at a snapshot.  Raises ResumeTokenExpired."""
        if asked.token is None:
            return
        cell, at = asked.token
        levels = self._hub.levels
        if cell == self._cell and at.epoch == levels.epoch:
            await self._hub.reached(at)
            if at.epoch == levels.epoch and at.sequence <= levels.sequence:
                watcher.resume(at.sequence)
                return
        if asked.fails_on_gap:
            raise self._gap(f"the token is of cell {cell}, {at.epoch}/{at.sequence}")

    def _gap(self, words: str) -> ResumeTokenExpired:
        """Return the error of a reader that cannot go on from where it was."""
        levels = self._hub.levels
        here = {"epoch": str(levels.epoch), "sequence": str(levels.sequence)}
        text = f"{words}, the ledger at {levels.epoch}/{levels.sequence}"
        return ResumeTokenExpired(text, metadata=here)

    async def _tell(
        self, watcher: Watcher, asked: Wanted, context: Context, notes: WatchNotes
    ) -> None:
        levels = self._hub.levels
        while True:
            if watcher.generation != levels.generation and levels.is_ready:
                # Parts of two snapshots could not be told apart.
                if asked.fails_on_gap or watcher.is_within_parts:
                    watcher.ending = Ending.EPOCH_CHANGED
                else:
                    watcher.restart()
            update = watcher.take(self._calls.gauge.load.suggested_min_interval_ms / 1000)
            if update is None:
                await watcher.wait()
                continue
            if notes.is_kept:
                notes.tell(update)
            if not await self._write(watcher, update, context):
                return
            if update.ending is not None:
                self._close(watcher, update.ending, asked)
                return

    def _close(self, watcher: Watcher, ending: Ending, asked: Wanted) -> None:
        """Raise the status that goes with an END, if it is not OK."""
        if ending is Ending.EPOCH_CHANGED and asked.fails_on_gap:
            raise self._gap(f"the stream was at {watcher.epoch}/{watcher.resumes_at}")
        if ending is Ending.STORE_UNAVAILABLE:
            raise StoreUnavailable("the store is out of reach", retry_after_ms=500)

    async def _write(self, watcher: Watcher, update: Update, context: Context) -> bool:
        """Send a message; tell whether there is still somebody to send to.

        Raises SlowConsumer when the reader took nothing for so long that the hub cut the write.
        """
        data = b"".join((self._head(watcher, update), *update.levels))
        watcher.writing_since = watcher.sent_at = asyncio.get_running_loop().time()
        try:
            await context.write(data)
        except (grpc.aio.UsageError, grpc.aio.InternalError):
            return False  # the reader has gone
        except asyncio.CancelledError:
            if not watcher.is_slow:
                raise
            raise self._slow(watcher) from None
        finally:
            watcher.writing_since = 0.0
        return True

    def _slow(self, watcher: Watcher) -> HoldfastError:
        with suppress(AttributeError):
            watcher.task.uncancel()  # type: ignore[union-attr]
        token = self._token(watcher, watcher.resumes_at)
        words = "the reader took nothing for too long"
        return SlowConsumer(words, metadata={"resume_token": token} if token else {})

    # ---- Messages ----

    def _token(self, watcher: Watcher, sequence: int | None) -> str:
        return "" if sequence is None else token_of(self._cell, Position(watcher.epoch, sequence))

    def _head(self, watcher: Watcher, update: Update) -> bytes:
        """Return all of a message but its levels, made once for all streams that stand alike."""
        if update.missing:  # up to a megabyte, which hardly two streams share
            return self._made(watcher, update).SerializeToString()
        load = self._calls.gauge.load
        key = (load, watcher.epoch, *update[:4], *update[5:])
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= HEADS_MAX:
                self._heads.clear()
            message = self._made(watcher, update)
            if load is not ServerLoad.NORMAL:
                message.server_pressure.CopyFrom(messages.server_pressure(load))
            head = self._heads[key] = message.SerializeToString()
        return head

    def _made(self, watcher: Watcher, update: Update) -> pb.WatchResponse:
        return pb.WatchResponse(
            kind=_KINDS[update.kind],
            from_sequence=update.from_sequence,
            through_sequence=update.through_sequence,
            resume_token=self._token(watcher, update.resume),
            conflated_count=update.conflated,
            end_reason=_REASONS[update.ending],
            missing_skus=update.missing,
        )


_KINDS = {
    UpdateKind.SNAPSHOT: pb.WATCH_KIND_SNAPSHOT,
    UpdateKind.CHANGES: pb.WATCH_KIND_CHANGES,
    UpdateKind.HEARTBEAT: pb.WATCH_KIND_HEARTBEAT,
    UpdateKind.END: pb.WATCH_KIND_END,
}
_REASONS = {
    None: pb.WATCH_END_REASON_UNSPECIFIED,
    Ending.DRAINING: pb.WATCH_END_REASON_DRAINING,
    Ending.MAX_AGE: pb.WATCH_END_REASON_MAX_AGE,
    Ending.EPOCH_CHANGED: pb.WATCH_END_REASON_EPOCH_CHANGED,
    Ending.SLOW_CONSUMER: pb.WATCH_END_REASON_SLOW_CONSUMER,
    Ending.STORE_UNAVAILABLE: pb.WATCH_END_REASON_STORE_UNAVAILABLE,
}
