"""A store that answers when the test says so, under a batcher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from holdfast_server.engine.batcher import Batcher, BatchLimits
from holdfast_server.model import BatchResult, Caller, Code, Line, Operation, Outcome, Reserve

CALLER = Caller("tests")


class Call:
    """One batch that waits for its answer."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = list(operations)
        self.answer: asyncio.Future[BatchResult] = asyncio.get_running_loop().create_future()

    @property
    def names(self) -> list[str]:
        return [name_of(operation) for operation in self.operations]

    def succeed(self, codes: dict[str, Code] | None = None, *, more_due: bool = False) -> None:
        """Answer every operation with its own name, and OK or the code given for it."""
        codes = codes or {}
        outcomes: list[Outcome | Exception] = [
            Outcome(codes.get(name, Code.OK), 1, 0, detail=name) for name in self.names
        ]
        self.answer.set_result(BatchResult(outcomes, 0, 1, more_due))


class HeldStore:
    """A store whose batches wait for the test."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._arrived: asyncio.Queue[Call] = asyncio.Queue()

    async def execute(self, operations: Sequence[Operation]) -> BatchResult:
        call = Call(operations)
        self.calls.append(call)
        self._arrived.put_nowait(call)
        return await call.answer

    async def next(self) -> Call:
        return await self._arrived.get()


def op(name: str, lines: int = 1) -> Reserve:
    return Reserve(name, CALLER, tuple(Line(f"sku{i}", 1) for i in range(lines)))


def name_of(operation: Operation) -> str:
    assert isinstance(operation, Reserve)
    return operation.reservation_id


async def settled() -> None:
    """Let every task run until it waits for something that is not the loop itself."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def batching(**limits: int) -> AsyncIterator[tuple[Batcher, HeldStore]]:
    store = HeldStore()
    batcher = Batcher(store, BatchLimits(**limits))
    task = asyncio.create_task(batcher.run())
    try:
        yield batcher, store
    finally:
        task.cancel()
        await asyncio.wait({task})


async def send(batcher: Batcher, *names: str) -> list[asyncio.Task[Outcome]]:
    """Start one caller for each name, all of them waiting when this returns."""
    tasks = [asyncio.create_task(batcher.execute(op(name))) for name in names]
    await settled()
    return tasks


async def answers(tasks: Sequence[asyncio.Task[Outcome]]) -> list[str]:
    return [(await task).detail for task in tasks]
