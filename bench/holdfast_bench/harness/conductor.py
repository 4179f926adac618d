"""One run from start to verdict: place, connect, load, watch over it, drain, judge.

    cli -> conductor -> worker -> session -> transport

A run that is interrupted, or whose target dies, still becomes a result: what was measured until
then, with the reason why it ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

from holdfast import AsyncClient, HoldfastError
from holdfast_bench.harness.aborting import failed
from holdfast_bench.harness.faults import WorkerFault
from holdfast_bench.harness.gate import Sold, acknowledged_of, judge
from holdfast_bench.harness.generator import Generator, begin_soon, generator
from holdfast_bench.harness.health import health
from holdfast_bench.harness.live import Progress, Screen
from holdfast_bench.harness.run import ABORTED, INTERRUPTED, LOST, Place, Run
from holdfast_bench.harness.sampling import HotItem, Resources
from holdfast_bench.harness.scenario import Scenario
from holdfast_bench.harness.striking import strike
from holdfast_bench.harness.target import has_ledger, put_on_sale

CALL_S_MAX = 30.0
OVERTIME_S = 30.0  # beyond the drain, for the last words of the generator


class Conductor:
    """Conducts one run."""

    def __init__(
        self,
        scenario: Scenario,
        place: Place,
        screen: Screen,
        interrupted: asyncio.Event,
        *,
        is_to_judge: bool = True,
    ) -> None:
        self._scenario, self._place, self._screen = scenario, place, screen
        self._interrupted, self._lost = interrupted, asyncio.Event()
        run_id = f"bench-{uuid4().hex[:12]}"
        self.outcome = Run(scenario, place, run_id, is_to_judge=is_to_judge)
        own = (f"{run_id}-{number:06d}" for number in range(scenario.catalogue.skus))
        self._skus = list(place.skus or own)
        self._has_ledger = True

    async def run(self) -> Run:
        """Do all of it.  Raises TargetUnusable, WorkerFault."""
        settings = {
            "scenario": {
                name: value for name, value in self._scenario.as_read().items() if value is not None
            },
            "target": self._place.target,
            "run_id": self.outcome.run_id,
            "skus": self._skus,
        }
        # Processes are started before this one has any channel: gRPC does not survive a fork.
        async with (
            generator(settings, self._scenario.processes) as load,
            AsyncClient(
                self._place.target, coalesce=False, lazy=True, retry=None, timeout=CALL_S_MAX
            ) as client,
        ):
            await self._prepare(client)
            self.outcome.connect_s = await load.ready()
            await self._conduct(load, client)
            await self._judge(load, client)
        return self.outcome

    async def _prepare(self, client: AsyncClient) -> None:
        self._has_ledger = await has_ledger(client)
        units, is_stocked = self._scenario.catalogue.units, bool(self._place.skus)
        if not is_stocked and not await put_on_sale(client, self._skus, units):
            self._note("the target has no Import: it makes its items itself")
        if not self._has_ledger:
            self._note("the target has no ledger: only what agents were told can be checked")

    async def _conduct(self, load: Generator, client: AsyncClient) -> None:
        self._place.meter()
        begin = begin_soon()
        load.begin(begin)
        self._screen.note(self._heading())
        resources = Resources(lambda: self._processes(load), begin)
        hot = HotItem(client, self._skus[0], begin, self._lost)
        async with _beside(
            resources.follow(),
            hot.follow(),
            self._screen.follow(lambda: self._progress(load, begin)),
            *self._fault(begin),
        ):
            await self._until_over(load, begin)
        self._place.meter()
        self.outcome.resources, self.outcome.stock = resources.rows, hot.rows
        self._keep(load, begin)

    async def _until_over(self, load: Generator, begin: float) -> None:
        """Wait until the load has ended, or had to; then every process has told what it has."""
        phases = self._scenario.phases
        ended = asyncio.create_task(load.ended())
        others = [asyncio.create_task(reason) for reason in self._reasons_to_end(load, begin)]
        timeout = phases.starting_s + phases.drain_s + OVERTIME_S
        try:
            done, _pending = await asyncio.wait(
                {ended, *others}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if ended in done:
                return ended.result()
            if not done:
                raise WorkerFault(f"the generator did not end in {timeout:g} s")
            self.outcome.end_reason = next(task.result() for task in others if task in done)
            self._note(f"stopped early: {self.outcome.end_reason}")
            load.stop()
            await load.ended_soon()
        finally:
            for task in (ended, *others):
                task.cancel()
            await asyncio.gather(ended, *others, return_exceptions=True)

    def _reasons_to_end(self, load: Generator, begin: float) -> Iterator[Coroutine[Any, Any, str]]:
        """Yield what returns the reason why a run cannot go on, the gravest first."""
        yield _reason(INTERRUPTED, self._interrupted.wait())
        yield _reason(LOST, self._server_ended())
        if self._scenario.aborting:
            yield self._aborted(load, begin)

    async def _aborted(self, load: Generator, begin: float) -> str:
        return ABORTED + await failed(self._scenario, load, begin)

    async def _server_ended(self) -> None:
        """Return when the target is gone for good."""
        waits = [asyncio.create_task(_reason(LOST, self._lost.wait()))]
        if self._place.server is not None:
            waits.append(asyncio.create_task(_reason(LOST, self._place.server.ended())))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    def _keep(self, load: Generator, begin: float) -> None:
        """Take over what the generator has told."""
        run = self.outcome
        run.lasted(time.perf_counter() - begin)
        run.recorded = load.recorded()
        run.health = health(run.recorded, load.loop_lags, load.cpu_s, run.steady_s)
        if not load.is_complete:
            self._note("a process of the generator could not tell everything any more")

    async def _judge(self, load: Generator, client: AsyncClient) -> None:
        """Let the gate judge the target, unless there is none left."""
        if not self.outcome.is_to_judge:
            return
        if self.outcome.end_reason == LOST:
            self._note("the target is gone: its promises could not be checked")
            return
        self._screen.note("checking every promise")
        numbers = (one.told.end.get("acknowledged", "") for one in load.processes)
        sold = Sold(
            self._skus,
            self._scenario.catalogue.units,
            load.counted("bought"),
            load.counted("unknown"),
            acknowledged_of(self.outcome.run_id, numbers),
        )
        try:
            judged = await judge(client, sold, has_ledger=self._has_ledger)
            self.outcome.verdicts, self.outcome.units = judged
        except HoldfastError as error:
            self._note(f"the target could not be read, its promises not checked: {error}")

    # ---- Small things ----

    def _fault(self, begin: float) -> Iterator[Coroutine[Any, Any, None]]:
        fault, server = self._scenario.fault, self._place.server
        if fault is not None and server is not None:
            at = begin + self._scenario.phases.warm_up_s + fault.at_s
            yield strike(fault, server, at, self._note)

    def _processes(self, load: Generator) -> dict[int, str]:
        kinds = dict.fromkeys(load.pids, "generator")
        if (server := self._place.server) is not None:
            kinds |= {server.pid: "server", server.store_pid: "store"}
        return kinds

    def _progress(self, load: Generator, begin: float) -> Progress:
        return load.progress(self._scenario.phases, time.perf_counter() - begin)

    def _heading(self) -> str:
        scenario = self._scenario
        return (
            f"{scenario.name}: {scenario.connections} connections, {scenario.transport}, "
            f"{scenario.processes} processes, at {self._place.target}"
        )

    def _note(self, text: str) -> None:
        self.outcome.notes.append(text)
        self._screen.note(text)


async def _reason(reason: str, event: Coroutine[Any, Any, object]) -> str:
    await event
    return reason


@asynccontextmanager
async def _beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the works for as long as the block."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
