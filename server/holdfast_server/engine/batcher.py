"""Group commit: operations that arrive while batches are in flight form the next one.

No timer: an idle engine sends as soon as no more calls come in, a busy one sends large batches.
Batches leave in the order of arrival.  A caller that leaves takes nothing with it: an operation
not yet sent is dropped, one already sent is decided and its answer forgotten.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import structlog

from holdfast_server.engine.backlog import Backlog
from holdfast_server.engine.load import Delays, LoadGauge, ServerLoad
from holdfast_server.errors import Draining, HoldfastError, Overloaded
from holdfast_server.model import BatchResult, Code, Operation, Outcome, Reserve, subjects, weight

log = structlog.get_logger(__name__)

Answer = Outcome | Exception


class Store(Protocol):
    """What the engine needs of a store: decide a batch in one atomic step."""

    async def execute(self, operations: Sequence[Operation]) -> BatchResult:
        """Return an outcome for each operation, or raise a StoreFault for all of them."""
        ...


@dataclass(frozen=True)
class BatchLimits:
    """Bounds of the engine: batches in flight, their size, and the queue before them.

    A batch beyond the first in flight leaves only with `lane_operations_min` operations: a small
    one costs as much as a large one, and the store would run it after the first anyway.
    """

    lanes: int = 2
    lane_operations_min: int = 32
    operations_max: int = 128
    lines_max: int = 256
    queue_len_max: int = 20_000

    @property
    def worth_sending(self) -> int:
        """Return the operations that make a batch for which nothing more is waited."""
        return min(self.lane_operations_min, self.operations_max)


@dataclass(eq=False, slots=True)
class _Group:
    """Operations of one caller, which came at one moment and are answered together."""

    answers: list[Answer | None]
    left: int
    done: asyncio.Future[list[Answer]]
    came_s: float

    def settle(self, index: int, answer: Answer) -> None:
        """Give one operation its answer; the last one wakes the caller."""
        self.answers[index] = answer
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(self.answers)  # type: ignore[arg-type]  # none is left None


_Waiting = tuple[Operation, _Group, int]


@dataclass
class EngineCounters:
    """What the engine has done since it started."""

    batches: int = 0
    operations: int = 0
    overloaded: int = 0
    shed: int = 0
    dropped: int = 0
    again: int = 0


def _is_undecided(outcome: Outcome | Exception) -> bool:
    return isinstance(outcome, Outcome) and outcome.code == Code.AGAIN


def _is_error(outcome: Outcome | Exception) -> bool:
    return not isinstance(outcome, Outcome) or outcome.code >= Code.INVALID


@dataclass(eq=False)
class Batcher:
    """Feeds a store with batches.  Start it as a task with `run`; stop it with `drain`."""

    store: Store
    limits: BatchLimits = BatchLimits()
    gauge: LoadGauge = field(default_factory=LoadGauge)
    backlog: Backlog = field(default_factory=Backlog)
    counters: EngineCounters = field(default_factory=EngineCounters)
    last_batch_at: float = 0.0

    def __post_init__(self) -> None:
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._in_flight: dict[asyncio.Task[None], float] = {}  # since when, the oldest first
        self._round_trip_s = 0.0
        self._touched: set[str] = set()
        self._is_draining = False

    @property
    def queue_len(self) -> int:
        """Return how many operations wait to be sent."""
        return len(self._queue)

    def delays_at(self, now_s: float) -> Delays:
        """Return how long the oldest operation has waited, and what the store takes to answer."""
        waited_s = now_s - self._queue[0][1].came_s if self._queue else 0.0
        if not self._in_flight:
            return Delays(waited_s * 1000)
        round_trip_s = max(self._round_trip_s, now_s - next(iter(self._in_flight.values())))
        return Delays(waited_s * 1000, round_trip_s * 1000)

    async def execute(self, operation: Operation) -> Outcome:
        """Return what became of an operation.

        Raises Overloaded at once when the queue is full, or for what may not be taken while the
        server is overloaded or the archive too far behind; Draining after `drain`; or the store's
        fault.  A cancelled caller detaches; it cancels no batch.
        """
        (answer,) = await (self._enqueue if self._takes_all else self._admitted)((operation,))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def execute_many(self, operations: Sequence[Operation]) -> list[Answer]:
        """Return what became of each operation, in order; those that failed give their error.

        Operations of one call are decided in the order given.  Raises Overloaded or Draining
        when none was taken.
        """
        return await (self._enqueue if self._takes_all else self._admitted)(operations)

    @property
    def _takes_all(self) -> bool:
        return self.gauge.load is not ServerLoad.OVERLOADED and not self.backlog.is_exceeded

    async def _admitted(self, operations: Sequence[Operation]) -> list[Answer]:
        """Have those decided that are still taken; the others are answered at once."""
        refusals = [self._refusal(operation) for operation in operations]
        taken = [op for op, refusal in zip(operations, refusals, strict=True) if not refusal]
        self.counters.shed += len(operations) - len(taken)
        decided = iter(await self._enqueue(taken))
        return [refusal or next(decided) for refusal in refusals]

    def _refusal(self, operation: Operation) -> Overloaded | None:
        if self.gauge.load is ServerLoad.OVERLOADED and isinstance(operation, Reserve):
            return self.gauge.refusal()
        return self.backlog.refusal(operation)

    def _enqueue(self, operations: Sequence[Operation]) -> asyncio.Future[list[Answer]]:
        """Have operations of one caller decided; return what will hold their answers."""
        count, queue, loop = len(operations), self._queue, asyncio.get_running_loop()
        self._admit(count)
        group = _Group([None] * count, count, loop.create_future(), loop.time())
        if not count:
            group.done.set_result([])
        for index, operation in enumerate(operations):
            queue.append((operation, group, index))
        if self._has_room():  # else a batch that lands wakes `run`
            self._wake.set()
        return group.done

    async def sweep(self) -> bool:
        """Send an empty batch, which ends what is due; tell whether more is due."""
        self.last_batch_at = asyncio.get_running_loop().time()
        return (await self.store.execute(())).more_due

    async def run(self) -> None:
        """Send batches until cancelled."""
        while True:
            await self._wake.wait()
            await self._gather()
            while self._queue and self._has_room():
                batch, touched = self._cut()
                if not batch:
                    break
                self._start(batch, touched)
            self._wake.clear()

    async def _gather(self) -> None:
        """Let calls that have arrived come in: go on when a turn of the loop brought none.

        A call takes several turns from the socket to the queue.  The first of a burst would leave
        alone, and all others wait for its answer.
        """
        before = 0
        while before < self.queue_len < self.limits.worth_sending:
            before = self.queue_len
            await asyncio.sleep(0)

    async def drain(self) -> None:
        """Refuse new operations and wait until every one taken has its answer."""
        self._is_draining = True
        while self._queue or self._in_flight:
            self._wake.set()
            await asyncio.wait(self._in_flight) if self._in_flight else await asyncio.sleep(0)

    def _admit(self, count: int) -> None:
        if self._is_draining:
            raise Draining("the server is shutting down", retry_after_ms=100)
        if len(self._queue) + count > self.limits.queue_len_max:
            self.counters.overloaded += count
            raise Overloaded(
                f"{len(self._queue)} operations wait, the limit is {self.limits.queue_len_max}",
                retry_after_ms=200,
            )

    def _has_room(self) -> bool:
        """Tell whether a batch may leave now: the first at once, another when it is worth it."""
        in_flight, limits = len(self._in_flight), self.limits
        if not in_flight:
            return True
        return in_flight < limits.lanes and len(self._queue) >= limits.worth_sending

    def _cut(self) -> tuple[list[_Waiting], set[str]]:
        """Take the next batch off the queue, without those whose caller has left; say its subjects.

        It ends before an operation on what a batch in flight has touched.  Batches in flight are
        decided in order only as long as none of them is sent again.
        """
        queue, limits, in_flight = self._queue, self.limits, self._touched
        batch: list[_Waiting] = []
        touched: set[str] = set()
        lines = 0
        while queue and len(batch) < limits.operations_max:
            operation, group, _index = queue[0]
            if group.done.done():
                queue.popleft()
                self.counters.dropped += 1
                continue
            lines += weight(operation)
            names = subjects(operation)
            if (batch and lines > limits.lines_max) or not in_flight.isdisjoint(names):
                break
            touched.update(names)
            batch.append(queue.popleft())
        return batch, touched

    def _start(self, batch: list[_Waiting], touched: set[str]) -> None:
        self.counters.batches += 1
        self.counters.operations += len(batch)
        self.last_batch_at = asyncio.get_running_loop().time()
        task = asyncio.create_task(self._send(batch), name="batch")
        self._in_flight[task] = self.last_batch_at
        self._touched |= touched
        task.add_done_callback(partial(self._landed, touched))

    def _landed(self, touched: set[str], task: asyncio.Task[None]) -> None:
        self._touched -= touched
        began_s = self._in_flight.pop(task)
        self._round_trip_s = asyncio.get_running_loop().time() - began_s
        self._wake.set()

    async def _send(self, batch: list[_Waiting]) -> None:
        try:
            result = await self.store.execute([operation for operation, _, _ in batch])
        except HoldfastError as fault:
            for _operation, group, index in batch:
                group.settle(index, fault)
            return
        except Exception as fault:  # a task root: a bug must fail its batch, not hang its callers
            log.exception("batch failed", operations=len(batch))
            for _operation, group, index in batch:
                group.settle(index, HoldfastError(f"internal error: {fault!r}"))
            return
        self._settle(batch, result.outcomes)

    def _settle(self, batch: list[_Waiting], outcomes: Iterable[Outcome | Exception]) -> None:
        again: list[_Waiting] = []
        undecided: set[str] = set()
        for waiting, outcome in zip(batch, outcomes, strict=True):
            operation, group, index = waiting
            if _is_undecided(outcome) or (
                undecided and _is_error(outcome) and not undecided.isdisjoint(subjects(operation))
            ):
                again.append(waiting)
                undecided.update(subjects(operation))
            else:
                group.settle(index, outcome)
        if again:
            # Overdue holds are still being ended: not sold out, only not known yet.  What failed
            # after it on the same reservation failed for want of it, and goes with it.
            self.counters.again += len(again)
            self._queue.extendleft(reversed(again))
