"""The Redis store: one script call a batch, on Redis >= 7.0 or Valkey >= 8.

A batch is atomic: the script reads, decides and writes in one step.  What a crash of the store
can lose is what its append-only file had not on disk, see docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import structlog
from redis.asyncio import Connection
from redis.exceptions import ResponseError

from holdfast_server.errors import HoldfastError, OutcomeUnknown, StoreUnavailable
from holdfast_server.kernel.source import library, lua_root
from holdfast_server.kernel.wire import decode_batch, encode_batch
from holdfast_server.model import (
    BatchResult,
    Commit,
    Extend,
    GetReservation,
    GetStock,
    Operation,
    Position,
    Release,
)
from holdfast_server.stores.redis.faults import (
    RETRY_AFTER_MS,
    MemoryFull,
    Rollback,
    ScriptFault,
    ScriptMissing,
    meaning,
)
from holdfast_server.stores.redis.keys import CellKeys
from holdfast_server.stores.redis.link import AnswerLost, Link, NotSent

log = structlog.get_logger(__name__)

# Operations that must work when memory is full: they free stock, or change nothing.
_FINISHING = (Commit, Release, Extend, GetReservation, GetStock)


@dataclass(frozen=True)
class RedisStoreConfig:
    """How to reach the store, and what every batch is told."""

    url: str
    cell: int = 0
    timeout_ms: int = 2_000
    reconnect_ms: int = 3_000
    hold_budget: int = 0
    retention_ms: int = 900_000
    accept_loss: bool = False


class RedisStore:
    """Executes batches on one cell.  Open it with `open`, close it with `aclose`."""

    def __init__(self, config: RedisStoreConfig) -> None:
        self._config = config
        self._keys = CellKeys.of(config.cell)
        self._library = library()
        self._open_text = (lua_root() / "redis" / "open.lua").read_text(encoding="utf-8")
        self._link = Link(config.url, timeout_ms=config.timeout_ms, greet=self._load_library)
        self._known = Position(0, 0)
        self._lost_history = ""

    @property
    def known(self) -> Position:
        """Return the newest position this process has seen."""
        return self._known

    @property
    def is_healthy(self) -> bool:
        """Tell whether the store is connected and its history is the one this process knows."""
        return self._link.is_connected and not self._lost_history

    async def open(self) -> None:
        """Join the cell's history, or start it.  Raises StoreUnavailable."""
        epoch, sequence, _schema = await self._open_cell("")
        self._known = Position(epoch, sequence)

    @property
    def is_lost(self) -> bool:
        """Tell whether the store has lost what this process knows, and is refused for it."""
        return bool(self._lost_history)

    async def renew(self) -> None:
        """Go on in an epoch of which this process knows nothing; begin one if need be.

        Nothing to do where a batch has found a history to follow meanwhile.  Raises
        StoreUnavailable.
        """
        known = self._known
        epoch, sequence, _schema = await self._open_cell("")
        if self.is_lost and epoch <= known.epoch:
            epoch, sequence, _schema = await self._open_cell(str(epoch))
        if self.is_lost and self._known.epoch == known.epoch:
            log.error("acknowledged history is lost", known=known, epoch=epoch, sequence=sequence)
            self._known, self._lost_history = Position(epoch, sequence), ""

    async def aclose(self) -> None:
        """Close the connection."""
        await self._link.aclose()

    async def execute(self, operations: Sequence[Operation]) -> BatchResult:
        """Decide a batch in one atomic step.  No operations: only what is due is done.

        Safe to repeat with the same ids: the batch is sent once more by itself when its answer is
        lost.  An operation that makes the script fail is found by halving and answered alone as
        an exception in its place.  Raises StoreUnavailable when nothing was written, and
        OutcomeUnknown when that cannot be known.
        """
        finishing = all(isinstance(operation, _FINISHING) for operation in operations)
        function = self._library.allow_oom if finishing else self._library.plain
        try:
            return await self._attempt(operations, function)
        except ScriptFault as fault:
            return await self._bisect(operations, fault)
        except MemoryFull as fault:
            return await self._finish_only(operations, fault)

    async def _attempt(self, operations: Sequence[Operation], function: str) -> BatchResult:
        """Send a batch, again where that is known to be safe."""
        packed = msgpack.packb(encode_batch(operations))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.reconnect_ms / 1000
        lost, sent = 0, False
        while True:
            epoch = self._known.epoch
            try:
                return await self._send(operations, function, packed)
            except ScriptMissing:
                await self._reload()
            except Rollback as rollback:
                if epoch == self._known.epoch:  # else another batch was told the same before
                    await self._leave_history(rollback)
            except AnswerLost as fault:
                sent, lost = True, lost + 1
                if lost > 1:
                    raise _unknown(fault) from fault
            except NotSent as fault:
                if loop.time() >= deadline:
                    raise (_unknown(fault) if sent else _unreachable(fault)) from fault
                await asyncio.sleep(0.05)

    async def _send(
        self, operations: Sequence[Operation], function: str, packed: bytes
    ) -> BatchResult:
        epoch, sequence = self._known
        config = self._config
        try:
            answer = await self._link.call(
                "FCALL",
                function,
                len(self._keys),
                *self._keys,
                epoch,
                sequence,
                config.hold_budget,
                config.retention_ms,
                len(operations),
                packed,
            )
        except ResponseError as reply:
            raise meaning(reply) from reply
        self._lost_history = ""  # the script has compared
        result = decode_batch(operations, msgpack.unpackb(answer, raw=True))
        if epoch == self._known.epoch and result.sequence > self._known.sequence:
            self._known = Position(epoch, result.sequence)
        return result

    async def _bisect(self, operations: Sequence[Operation], fault: ScriptFault) -> BatchResult:
        """Halve a batch whose script failed until the operations that fail stand alone."""
        if len(operations) <= 1:
            log.error("operation failed in the store", operation=operations, fault=str(fault))
            error = HoldfastError(f"the operation failed in the store: {fault}")
            failed: list[Any] = [error] * len(operations)
            return BatchResult(failed, 0, self._known.sequence, False)
        half = len(operations) // 2
        first = await self.execute(operations[:half])
        second = await self.execute(operations[half:])
        return second._replace(outcomes=first.outcomes + second.outcomes)

    async def _finish_only(self, operations: Sequence[Operation], fault: MemoryFull) -> BatchResult:
        """Run what frees stock through the allow-oom twin and refuse the rest."""
        finishing = [op for op in operations if isinstance(op, _FINISHING)]
        result = await self._attempt(finishing, self._library.allow_oom)
        done = iter(result.outcomes)
        error = _unreachable(fault, "the store is out of memory")
        outcomes: list[Any] = [
            next(done) if isinstance(operation, _FINISHING) else error for operation in operations
        ]
        return result._replace(outcomes=outcomes)

    async def _load_library(self, connection: Connection) -> None:
        await connection.send_command("FUNCTION", "LOAD", self._library.text)
        try:
            await connection.read_response()
        except ResponseError as reply:
            if "already exists" not in str(reply):
                raise

    async def _reload(self) -> None:
        try:
            await self._link.call("FUNCTION", "LOAD", self._library.text)
        except ResponseError as reply:
            if "already exists" not in str(reply):
                raise meaning(reply) from reply

    async def _open_cell(self, leave: str) -> tuple[int, int, int]:
        try:
            answer = await self._link.call("EVAL", self._open_text, 1, self._keys.meta, leave)
        except ResponseError as reply:
            raise _unreachable(reply) from reply
        except (NotSent, AnswerLost) as fault:
            raise _unreachable(fault) from fault
        *numbers, sealed = answer
        if sealed:
            self._lost_history = "the store is being rebuilt from the archive"
            raise StoreUnavailable(self._lost_history, retry_after_ms=RETRY_AFTER_MS)
        epoch, sequence, schema = (int(value) for value in numbers)
        if schema != 1:
            raise StoreUnavailable(f"the store's schema is {schema}, this server knows 1")
        return epoch, sequence, schema

    async def _leave_history(self, rollback: Rollback) -> None:
        """Adopt a newer epoch; start one when loss is accepted; else refuse to go on."""
        known = self._known
        was_lost = rollback.epoch <= known.epoch
        words = f"the store went back from {known} to {rollback}"
        if was_lost and not self._config.accept_loss:
            if not self._lost_history:
                log.error("store history lost, refusing", known=known, found=str(rollback))
            self._lost_history = words
            raise StoreUnavailable(words, retry_after_ms=RETRY_AFTER_MS)
        epoch, sequence, _schema = await self._open_cell(str(known.epoch) if was_lost else "")
        log.error("store history changed, following", known=known, epoch=epoch, sequence=sequence)
        self._known, self._lost_history = Position(epoch, sequence), ""


def _unknown(fault: Exception) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the store's answer was lost, send the same id again: {fault}",
        retry_after_ms=RETRY_AFTER_MS,
    )


def _unreachable(fault: Exception, words: str = "") -> StoreUnavailable:
    return StoreUnavailable(words or str(fault), retry_after_ms=RETRY_AFTER_MS)
