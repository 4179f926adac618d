"""A process of the generator: its share of the sessions, told on standard input, told of on output.

    python -m holdfast_bench.harness.worker

Lines of JSON.  In: the settings, {"begin_at": SECONDS} on the clock all processes share, and
{"stop": true}; when the input ends, so does the process.  Out: {"kind": "ready"}, a {"kind":
"part"} each second with what was recorded since the last one, and {"kind": "end"}.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import os
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import uvloop

from holdfast_bench.harness.alarm import Alarm
from holdfast_bench.harness.distributions import popularity, waits
from holdfast_bench.harness.lines import Lines
from holdfast_bench.harness.pacer import share, starts
from holdfast_bench.harness.recording import Recorder
from holdfast_bench.harness.scenario import Scenario
from holdfast_bench.harness.session import Dice, Session, Shop
from holdfast_bench.harness.settings import build
from holdfast_bench.harness.toll import Toll
from holdfast_bench.harness.transport import Transport, connect
from holdfast_bench.harness.watchers import Watchers

CALL_S_MAX = 10.0
PART_S = 1.0
LATE_IN_A_ROW_MAX = 16  # starts that are late go out together, but let the others live
GC_THRESHOLDS = (50_000, 50, 100)  # sessions make no cycles


def part_of(total: int, index: int, of: int) -> int:
    """Return one of `of` shares of a total that differ by at most one."""
    return total // of + (index < total % of)


class Worker:
    """One process of the generator."""

    def __init__(self, settings: dict[str, Any], transports: list[Transport], begin_at: float):
        self.scenario = scenario = build(Scenario, settings["scenario"])
        self._index, self._of = settings["index"], settings["of"]
        self._sessions_max = part_of(scenario.sessions_max, self._index, self._of)
        self._transports, self._begin_at = transports, begin_at
        phases = scenario.phases
        self._steady_at = begin_at + phases.warm_up_s
        self._starts_end_at = begin_at + phases.starting_s
        self._alive: set[asyncio.Task[None]] = set()
        self._fault: BaseException | None = None
        self.recorder = Recorder(begin_at)
        self._toll = Toll(self._steady_at, self._starts_end_at)
        self._settings = settings
        self._seconds_told = 0

    # ---- The plan ----

    def phase_at(self, moment: float) -> str:
        """Return the phase that a moment falls into."""
        if moment < self._steady_at:
            return "warm_up"
        return "steady" if moment < self._starts_end_at else "drain"

    def _shop(self, alarm: Alarm) -> Shop:
        scenario, settings = self.scenario, self._settings
        life = scenario.life
        dice = Dice(popularity(scenario.catalogue), waits(life.think), waits(life.pay))
        return Shop(
            settings["run_id"],
            scenario.seed,
            life,
            settings["skus"],
            dice,
            self.recorder,
            self.phase_at,
            alarm,
        )

    def _plan(self) -> Iterator[tuple[int, float]]:
        """Yield number and moment of this worker's starts."""
        arrivals, seconds = self.scenario.arrivals, self.scenario.phases.starting_s
        planned = starts(arrivals, seconds, Random(self.scenario.seed))
        for number, offset in share(planned, self._index, self._of):
            yield number, self._begin_at + offset

    # ---- The run ----

    async def run(self, stopping: asyncio.Event) -> dict[str, Any]:
        """Live all sessions, and return what is left to tell.  Raises what a session raised."""
        with Alarm() as alarm:
            self.shop = self._shop(alarm)
            besides = [
                asyncio.create_task(work)
                for work in (self._toll.sample_lag(alarm), self._toll.sample_cpu(alarm))
            ]
            living = asyncio.create_task(self._live_all(alarm))
            stopped = asyncio.create_task(stopping.wait())
            await asyncio.wait({living, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in (*besides, living, stopped, *self._alive):
                task.cancel()
            await asyncio.gather(*besides, living, stopped, *self._alive, return_exceptions=True)
        if self._fault is not None:
            raise self._fault
        return self._end()

    async def _live_all(self, alarm: Alarm) -> None:
        is_open = self.scenario.arrivals.is_open
        late = 0
        for number, planned in self._plan():
            late = 0 if planned > time.perf_counter() else (late + 1) % LATE_IN_A_ROW_MAX
            if not late:
                await alarm.until(planned)
            self.recorder.session_planned(planned)
            if len(self._alive) >= self._sessions_max:
                self.recorder.session_dropped(planned)
            elif is_open:
                self._begin(self._live(number, planned))
            else:
                self._begin(self._live_on(number, planned))
        await alarm.until(self._starts_end_at)
        if self._alive:
            await asyncio.wait(self._alive, timeout=self.scenario.phases.drain_s)

    def _begin(self, life: Any) -> None:
        task = asyncio.create_task(life)
        self._alive.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._alive.discard(task)
        if not task.cancelled() and (fault := task.exception()) and self._fault is None:
            self._fault = fault

    async def _live(self, number: int, planned: float) -> None:
        self.recorder.session_started(planned)
        transport = self._transports[number // self._of % len(self._transports)]
        await Session(self.shop, transport, number, planned).live()
        self.recorder.session_finished(time.perf_counter())

    async def _live_on(self, number: int, planned: float) -> None:
        """Live one session after the other, as closed arrivals do."""
        while planned < self._starts_end_at:
            await self._live(number, planned)
            number, planned = number + self.scenario.arrivals.sessions, time.perf_counter()
            if planned < self._starts_end_at:
                self.recorder.session_planned(planned)
            await asyncio.sleep(0)

    # ---- What it tells ----

    def part(self) -> dict[str, Any]:
        """Return what was recorded so far: totals, and the seconds since the last part."""
        recorded = self.recorder.encode()
        seconds = recorded["seconds"]
        recorded["seconds"] = seconds[self._seconds_told :]
        self._seconds_told = len(seconds)
        return {
            "kind": "part",
            "recorded": recorded,
            "alive": len(self._alive),
            "cpu_s": self._toll.cpu_s(),
        }

    def _end(self) -> dict[str, Any]:
        tally = self.shop.tally
        acknowledged = base64.b64encode(tally.acknowledged.tobytes()).decode()
        return {
            **self.part(),
            "kind": "end",
            "lags": self._toll.lags(),
            "bought": tally.bought,
            "unknown": tally.unknown,
            "acknowledged": acknowledged,
        }


async def _tell(worker: Worker, lines: Lines) -> None:
    while True:
        await asyncio.sleep(PART_S)
        await lines.say(worker.part())


async def _listen(lines: Lines, stopping: asyncio.Event) -> None:
    await lines.read()  # the word to stop, or the end: the conductor has died
    stopping.set()


async def _connected(settings: dict[str, Any]) -> tuple[list[Transport], Watchers]:
    """Make this process's share of the connections and of the watches."""
    scenario = build(Scenario, settings["scenario"])
    index, of = settings["index"], settings["of"]
    connections = part_of(scenario.connections, index, of)
    transports = await connect(
        settings["target"], scenario.transport, connections, timeout_s=CALL_S_MAX
    )
    watchers = Watchers(transports, settings["skus"], popularity(scenario.catalogue))
    await watchers.open(range(index, scenario.watchers, of), scenario.seed)
    return transports, watchers


async def _main() -> None:
    lines, began = Lines(), time.perf_counter()
    await lines.open()
    settings = await lines.read()
    transports, watchers = await _connected(settings)
    await lines.say({"kind": "ready", "connect_s": time.perf_counter() - began})
    begin = await lines.read()
    if begin is None or "begin_at" not in begin:
        return
    worker, stopping = Worker(settings, transports, begin["begin_at"]), asyncio.Event()
    watchers.follow(worker.recorder, worker.phase_at)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    telling = asyncio.create_task(_tell(worker, lines))
    listening = asyncio.create_task(_listen(lines, stopping))
    end = await worker.run(stopping)
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    await lines.say(end)
    listening.cancel()
    os._exit(0)  # ten thousand streams to close in good order would take seconds


if __name__ == "__main__":
    uvloop.run(_main())
