"""Thresholds that end a run which fails them, so that nobody waits for what is lost already.

Once a second of the steady phase they are judged on what the generator has told by then.  Each row
of a second is added up once, so a look takes the conductor some 40 ms of CPU, in the first minute
and after an hour alike; the processes that generate the load do nothing for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast_bench.harness.generator import Generator, Told
from holdfast_bench.harness.histogram import Histogram
from holdfast_bench.harness.recording import Recorded, merge
from holdfast_bench.harness.results import figures, times
from holdfast_bench.harness.scenario import Expectation, Scenario
from holdfast_bench.harness.tallies import Second
from holdfast_bench.harness.thresholds import parse

LOOK_S = 1.0


class SoFar:
    """What a generator has measured so far."""

    def __init__(self, told: Sequence[Told]) -> None:
        self._told = told
        self._taken = [0] * len(told)
        self._recorded = Recorded()

    def figures(self, steady_s: float) -> dict[str, Any]:
        """Return the figures of a result that are known after so much of the steady phase."""
        self._take()
        generator = {"lag": times(self._recorded.lag)}
        return {**figures(self._recorded, steady_s), "generator": generator}

    def _take(self) -> None:
        new = merge(*filter(None, map(self._untaken, range(len(self._told)))))
        for number, second in new.seconds.items():
            self._recorded.seconds.setdefault(number, Second()).merge(second)
        for rpc, calls in new.rpcs.items():
            so_far = self._recorded.rpcs[rpc]
            so_far.service = Histogram()  # told as a total, unlike the rest
            so_far.merge(calls)
        self._recorded.lag = new.lag

    def _untaken(self, index: int) -> dict[str, Any]:
        """Return the part of a process without the rows of seconds that were taken before."""
        recorded, taken = self._told[index].recorded, self._taken[index]
        if not recorded:
            return {}
        self._taken[index] = len(recorded["seconds"])
        return {**recorded, "seconds": recorded["seconds"][taken:]}


async def failed(scenario: Scenario, load: Generator, begin: float) -> str:
    """Return the first threshold that fails; wait for ever when none does.

    A share of the last second has not been told, so the steady phase is taken for a second
    shorter than it is: in doubt a rate is high enough.
    """
    so_far, phases = SoFar([one.told for one in load.processes]), scenario.phases
    look = begin + phases.warm_up_s + LOOK_S
    while look < begin + phases.starting_s:
        look += LOOK_S
        await asyncio.sleep(look - time.perf_counter())
        elapsed_s = look - begin - phases.warm_up_s
        result = so_far.figures(elapsed_s - LOOK_S)
        if expression := broken(scenario.aborting, elapsed_s, result):
            return expression
    never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    return await never


def broken(
    expectations: Sequence[Expectation], elapsed_s: float, result: Mapping[str, Any]
) -> str | None:
    """Return the expression of the first that fails and is judged by now.

    A figure that has no value yet fails nothing.
    """
    for one in expectations:
        if elapsed_s >= one.after_s:
            judged = parse(one.expression).judge(result)
            if judged["value"] is not None and not judged["holds"]:
                return one.expression
    return None
