"""What a run is: where it takes place, and everything it brought."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from holdfast_bench.harness import limits
from holdfast_bench.harness.embedded import EmbeddedServer, embedded_server
from holdfast_bench.harness.gate import Units
from holdfast_bench.harness.health import Health
from holdfast_bench.harness.recording import Recorded
from holdfast_bench.harness.scenario import Scenario
from holdfast_bench.harness.target import probe
from holdfast_server.checks import Verdict

COMPLETED, INTERRUPTED, LOST = "completed", "interrupted", "the target went away"
ABORTED = "aborted: "  # and the threshold that failed


@dataclass(frozen=True)
class Place:
    """Where a run takes place; `server` is the embedded one, if it is that.

    `skus` are on sale there already, with the units of the scenario; none: the run puts items of
    its own on sale.  `meter` is called before the load begins, and when it has ended.
    """

    target: str
    server: EmbeddedServer | None = None
    skus: Sequence[str] = ()
    meter: Callable[[], None] = lambda: None


@dataclass
class Run:
    """Everything that a run brought, for results to be made of."""

    scenario: Scenario
    place: Place
    run_id: str
    began: float = field(default_factory=time.perf_counter)
    connect_s: float = 0.0
    end_reason: str = COMPLETED
    steady_s: float = 0.0
    recorded: Recorded = field(default_factory=Recorded)
    health: Health | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    units: Units | None = None
    phases: list[dict[str, Any]] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    stock: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    is_to_judge: bool = True

    def lasted(self, seconds: float) -> None:
        """Note which phases there were in so many seconds since the load began."""
        warm, starting = self.scenario.phases.warm_up_s, self.scenario.phases.starting_s
        edges = {"warm_up": (0.0, warm), "steady": (warm, starting), "drain": (starting, seconds)}
        self.phases = [{"name": "connect", "began": -self.connect_s, "ended": 0.0}]
        self.phases += [
            {"name": name, "began": began, "ended": min(ended, seconds)}
            for name, (began, ended) in edges.items()
            if began < seconds
        ]
        self.steady_s = max(min(starting, seconds) - warm, 0.0)

    @property
    def is_whole(self) -> bool:
        """Whether it ran to its end, and its target was judged if it was to be."""
        return self.end_reason == COMPLETED and (self.units is not None or not self.is_to_judge)


@asynccontextmanager
async def placed(scenario: Scenario, target: str, **settings: Any) -> AsyncIterator[Place]:
    """Yield where to run: at the target, or without one at a server of the run's own.

    Raises LimitTooLow, TargetUnusable, WorkerFault.
    """
    limits.allow(scenario.connections, scenario.processes, is_embedded=not target)
    if target:
        await probe(target)
        yield Place(target)
        return
    async with embedded_server(**settings) as server:
        yield Place(server.target, server)
