"""The processes that generate the load, as the conductor sees them."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from holdfast_bench.harness.faults import WorkerFault
from holdfast_bench.harness.lines import LINE_BYTES_MAX
from holdfast_bench.harness.live import Progress
from holdfast_bench.harness.recording import Recorded, merge
from holdfast_bench.harness.scenario import Phases
from holdfast_bench.harness.tallies import Calls, Second

STOP_S_MAX = 10.0
LAST_WORDS = 20
CONNECT_S_MAX = 90.0
SECONDS_BEHIND, NEWEST_ROWS = 2, 12


@dataclass
class Told:
    """What one process has told so far."""

    recorded: dict[str, Any] = field(default_factory=dict)
    alive: int = 0
    cpu_s: tuple[float, float] = (0.0, 0.0)  # used, and waited for
    end: dict[str, Any] = field(default_factory=dict)

    def take(self, line: dict[str, Any]) -> None:
        """Take one part; its totals replace those before, its seconds follow them."""
        seconds = self.recorded.get("seconds", [])
        seconds += line["recorded"]["seconds"]
        self.recorded = {**line["recorded"], "seconds": seconds}
        self.alive, self.cpu_s = line["alive"], (line["cpu_s"][0], line["cpu_s"][1])

    def newest_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the last seconds it has told of."""
        rows: list[dict[str, Any]] = self.recorded.get("seconds", [])
        return rows[-NEWEST_ROWS:]


def phases_at(phases: Phases, elapsed_s: float) -> tuple[str, float]:
    """Return the phase that a run is in after so many seconds, and how many are left of it."""
    for name, ends_s in (("warm_up", phases.warm_up_s), ("steady", phases.starting_s)):
        if elapsed_s < ends_s:
            return name, ends_s - elapsed_s
    return "drain", max(phases.starting_s + phases.drain_s - elapsed_s, 0.0)


class GeneratorProcess:
    """One process of the generator."""

    def __init__(self, process: asyncio.subprocess.Process, number: int) -> None:
        self.process, self.number = process, number
        self.told = Told()
        self.ready: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._listen())]

    def say(self, value: dict[str, Any]) -> None:
        """Send it a line; one that has ended hears nothing."""
        assert self.process.stdin is not None
        with suppress(ConnectionError, RuntimeError):
            self.process.stdin.write(json.dumps(value).encode() + b"\n")

    async def aclose(self) -> None:
        """End it; one that has told everything ends by itself.

        A signal to one that has ended would take its status from the event loop, which complains.
        """
        if self.process.returncode is None and not self.told.end:
            self.process.kill()
        await self.process.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for future in (self.ready, self.ended):
            if future.done() and not future.cancelled():
                future.exception()  # so that nobody complains it was not looked at

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self._last_words.append(line.decode(errors="replace").rstrip())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            told = json.loads(line)
            match told["kind"]:
                case "ready":
                    self.ready.set_result(told["connect_s"])
                case "part":
                    self.told.take(told)
                case "end":
                    self.told.take(told)
                    self.told.end = told
                    self.ended.set_result(None)
        await self.process.wait()
        await asyncio.gather(self._tasks[1], return_exceptions=True)
        said = " | ".join(self._last_words) or f"status {self.process.returncode}"
        fault = WorkerFault(f"generator process {self.number} ended: {said}")
        for future in (self.ready, self.ended):
            if not future.done():
                future.set_exception(fault)


class Generator:
    """All processes of the generator together."""

    def __init__(self, processes: Sequence[GeneratorProcess]) -> None:
        self.processes = processes

    @property
    def pids(self) -> list[int]:
        """Process ids of those that run."""
        return [one.process.pid for one in self.processes if one.process.returncode is None]

    async def ready(self) -> float:
        """Wait until all are connected; return the seconds it took.  Raises WorkerFault."""
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                return max(await asyncio.gather(*(one.ready for one in self.processes)))
        except TimeoutError:
            raise WorkerFault(f"the connections were not made in {CONNECT_S_MAX:g} s") from None

    def begin(self, at: float) -> None:
        """Let all begin at a moment of time.perf_counter."""
        for one in self.processes:
            one.say({"begin_at": at})

    def stop(self) -> None:
        """Ask all to stop at once, and to tell what they have."""
        for one in self.processes:
            one.say({"stop": True})

    async def ended(self) -> None:
        """Wait until all have told everything.  Raises WorkerFault."""
        await asyncio.gather(*(one.ended for one in self.processes))

    async def ended_soon(self) -> None:
        """Wait for the last words of those that were asked to stop; for no longer than needed."""
        await asyncio.wait([one.ended for one in self.processes], timeout=STOP_S_MAX)

    # ---- What they have told ----

    def recorded(self) -> Recorded:
        """Return everything recorded so far."""
        return merge(*(one.told.recorded for one in self.processes if one.told.recorded))

    def progress(self, phases: Phases, elapsed_s: float) -> Progress:
        """Return where the run is, by the last second that all processes have told of whole."""
        second, calls = self._second(math.floor(elapsed_s) - SECONDS_BEHIND), Calls()
        for by_rpc in (second.measured, second.unmeasured):
            for some in by_rpc.values():
                calls.merge(some)
        p50, p99 = calls.response.percentiles_us((50.0, 99.0))
        phase, left_s = phases_at(phases, elapsed_s)
        sessions = second.sessions
        return Progress(
            phase,
            elapsed_s,
            left_s,
            self.alive,
            sessions.started,
            sessions.finished,
            sessions.dropped,
            calls.outcomes,
            p50 / 1e3,
            p99 / 1e3,
        )

    def _second(self, number: int) -> Second:
        second = Second()
        for one in self.processes:
            for row in one.told.newest_rows():
                if row["second"] == number:
                    second.merge(Second.unpacked(row))
        return second

    @property
    def alive(self) -> int:
        """Sessions alive."""
        return sum(one.told.alive for one in self.processes)

    @property
    def cpu_s(self) -> list[tuple[float, float]]:
        """Processor seconds of the steady phase by process: used, and waited for."""
        return [one.told.cpu_s for one in self.processes]

    @property
    def loop_lags(self) -> list[float]:
        """How late the event loops were, in seconds, sorted."""
        return sorted(lag for one in self.processes for lag in one.told.end.get("lags", ()))

    def counted(self, name: str) -> Counter[str]:
        """Return the sum of the counters of this name: `bought` or `unknown` units by SKU."""
        total: Counter[str] = Counter()
        for one in self.processes:
            total.update(one.told.end.get(name, {}))
        return total

    @property
    def is_complete(self) -> bool:
        """Whether every process has told everything."""
        return all(one.told.end for one in self.processes)


@asynccontextmanager
async def generator(settings: dict[str, Any], processes: int) -> AsyncIterator[Generator]:
    """Run the processes of a generator until the block ends; they connect by themselves."""
    async with AsyncExitStack() as stack:
        started = []
        for index in range(processes):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "holdfast_bench.harness.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=LINE_BYTES_MAX,
                start_new_session=True,  # Ctrl-C reaches the conductor alone
            )
            one = GeneratorProcess(process, index)
            stack.push_async_callback(one.aclose)
            one.say({**settings, "index": index, "of": processes})
            started.append(one)
        yield Generator(started)


def begin_soon(seconds: float = 0.3) -> float:
    """Return a moment that all processes will have heard of before it comes."""
    return time.perf_counter() + seconds
