"""The search for the limit, faults on schedule, and what is shown meanwhile."""

from __future__ import annotations

import asyncio
import io
import signal
import time
from dataclasses import dataclass
from typing import Any, cast

import pytest
from rich.console import Console

from holdfast_bench.harness import saturation
from holdfast_bench.harness.embedded import EmbeddedServer
from holdfast_bench.harness.gate import Units
from holdfast_bench.harness.generator import phases_at
from holdfast_bench.harness.health import health
from holdfast_bench.harness.live import LineScreen, LiveScreen, Progress, SilentScreen
from holdfast_bench.harness.recording import Outcome, Recorder, merge
from holdfast_bench.harness.run import INTERRUPTED, Place, Run
from holdfast_bench.harness.scenario import Arrivals, Fault, Phases, Saturate, Scenario
from holdfast_bench.harness.striking import strike

PLACE = Place("127.0.0.1:1")


class Sustaining:
    """A conductor whose server is fast up to a rate, and slow beyond."""

    limit = 500.0
    ran: list[tuple[float, bool]]

    def __init__(
        self,
        scenario: Scenario,
        place: Place,
        _screen: object,
        interrupted: asyncio.Event,
        *,
        is_to_judge: bool = True,
    ) -> None:
        self._run = Run(scenario, place, "run", is_to_judge=is_to_judge)
        self._interrupted = interrupted

    async def run(self) -> Run:
        rate, recorder = self._run.scenario.arrivals.rate, Recorder(0.0)
        took_s = 0.001 if rate <= self.limit else 1.0
        for number in range(10):
            recorder.record("Reserve", "steady", number, number, number + took_s, Outcome.OK)
        run = self._run
        run.recorded = merge(recorder.encode())
        run.health = health(run.recorded, [], [(1.0, 0.0)], 10.0)
        run.steady_s = 10.0
        if run.is_to_judge:
            run.units = Units(1, 1, 0, 0)
        if self._interrupted.is_set():
            run.end_reason = INTERRUPTED
        self.ran.append((rate, run.is_to_judge))
        return run


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, bool]]:
    found: list[tuple[float, bool]] = []
    monkeypatch.setattr(Sustaining, "ran", found, raising=False)
    monkeypatch.setattr(saturation, "Conductor", Sustaining)
    return found


def searching(first: float, **limits: float) -> Scenario:
    saturate = Saturate("p99 < 50ms", step=200.0, **limits)
    return Scenario(arrivals=Arrivals(rate=first), saturate=saturate)


async def found(scenario: Scenario, *, is_interrupted: bool = False) -> tuple[Run, dict[str, Any]]:
    interrupted = asyncio.Event()
    if is_interrupted:
        interrupted.set()
    run, further = await saturation.search(scenario, PLACE, SilentScreen(), interrupted)
    return run, further["saturation"]


async def test_the_rate_rises_until_the_objective_breaks(ran: list[tuple[float, bool]]) -> None:
    run, said = await found(searching(100.0))
    assert said["sustained_rate"] == 500.0
    assert [(step["rate"], step["holds"]) for step in said["steps"]] == [
        (100.0, True), (300.0, True), (500.0, True), (700.0, False)
    ]  # fmt: skip
    # The highest that held is run again, in full, and judged by the gate and the objective.
    assert ran == [(100.0, False), (300.0, False), (500.0, False), (700.0, False), (500.0, True)]
    assert "p99 < 50ms" in run.scenario.thresholds
    assert run.is_whole


async def test_a_search_ends_at_the_highest_rate(ran: list[tuple[float, bool]]) -> None:
    _run, said = await found(searching(100.0, rate_max=300.0))
    assert (said["sustained_rate"], len(said["steps"])) == (300.0, 2)


async def test_nothing_sustained_is_said_so(ran: list[tuple[float, bool]]) -> None:
    run, said = await found(searching(600.0))
    assert said["sustained_rate"] == 0.0
    assert run.scenario.arrivals.rate == 600.0


async def test_an_interrupted_search_goes_no_further(ran: list[tuple[float, bool]]) -> None:
    run, said = await found(searching(100.0), is_interrupted=True)
    assert len(said["steps"]) == 1
    assert run.end_reason == INTERRUPTED


@dataclass
class Victims:
    """Where a fault finds its process."""

    pid: int
    store_pid: int


async def sleeper() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec("sleep", "60")


async def test_a_kill_strikes_the_store_and_nobody_else() -> None:
    server, store, notes = await sleeper(), await sleeper(), []
    victims = cast(EmbeddedServer, Victims(server.pid, store.pid))
    await strike(Fault("kill", "store"), victims, time.perf_counter(), notes.append)
    assert await store.wait() == -signal.SIGKILL
    assert server.returncode is None
    assert "kill -9 of the store" in notes[0]
    server.kill()
    await server.wait()


async def test_a_pause_is_over_even_when_the_run_ends_in_it() -> None:
    server, noted = await sleeper(), asyncio.Event()
    victims = cast(EmbeddedServer, Victims(server.pid, 0))
    pause = Fault("pause", "server", for_s=60.0)
    striking = asyncio.create_task(
        strike(pause, victims, time.perf_counter(), lambda _words: noted.set())
    )
    await noted.wait()
    striking.cancel()
    await asyncio.gather(striking, return_exceptions=True)
    server.terminate()  # heeded only by a process that goes on
    assert await server.wait() == -signal.SIGTERM


PROGRESS = Progress(
    "steady", 12.4, 17.6, 9_876, 500, 480, 3, {"ok": 900, "sold_out": 40, "error": 0}, 1.25, 8.0
)


def test_a_line_has_what_happens_and_nothing_that_does_not() -> None:
    said = dict(PROGRESS.facts())
    assert (said["alive"], said["calls/s"], said["sold_out"]) == ("9,876", "940", "40")
    assert said["dropped"] == "3"
    assert "error" not in said


@pytest.mark.parametrize("screen", [LineScreen, LiveScreen])
async def test_a_run_is_shown_while_it_goes(screen: type[LineScreen]) -> None:
    output, looked = io.StringIO(), asyncio.Event()

    def look() -> Progress:
        looked.set()
        return PROGRESS

    console = Console(file=output, width=200, force_terminal=screen is LiveScreen)
    following = asyncio.create_task(screen(console).follow(look))
    await looked.wait()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert "9,876" in output.getvalue()


def test_a_run_knows_its_phase() -> None:
    phases = Phases(warm_up_s=5.0, steady_s=10.0, drain_s=2.0)
    assert [phases_at(phases, at) for at in (0.0, 5.0, 16.0, 30.0)] == [
        ("warm_up", 5.0), ("steady", 10.0), ("drain", 1.0), ("drain", 0.0)
    ]  # fmt: skip
