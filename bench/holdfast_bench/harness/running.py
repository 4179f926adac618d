"""A scenario from its name to a run directory: `run` is what the command line calls.

Ctrl-C ends a run early, and what was measured is written all the same; pressed again, it ends
everything at once.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holdfast_bench.harness import artifacts, environment, report
from holdfast_bench.harness.conductor import Conductor
from holdfast_bench.harness.live import Screen
from holdfast_bench.harness.results import assemble
from holdfast_bench.harness.run import Place, Run, placed
from holdfast_bench.harness.saturation import search
from holdfast_bench.harness.scenario import Scenario, ScenarioError
from holdfast_bench.harness.store_settings import store_settings

LOCAL = ("127.", "localhost", "[::1]")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Order:
    """What to run, against what, and where its results go; no target is an embedded server."""

    scenario: Scenario
    out: Path
    target: str = ""
    command: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.target and self.scenario.fault:
            raise ScenarioError("fault", "can only strike an embedded server")


async def run(order: Order, screen: Screen) -> dict[str, Any]:
    """Run, judge, and write the run directory; return what is in result.json.

    Raises HarnessFault when nothing could be measured, ResultsUnwritable.
    """
    artifacts.prepare(order.out)
    date = datetime.now(UTC).astimezone()
    with _interruptible() as interrupted:
        async with placed(order.scenario, order.target) as place:
            ran, further = await _conducted(order.scenario, place, screen, interrupted)
            server = await _told_by(place)
    result = {**assemble(ran, date), **further}
    described = environment.gather(
        order.scenario,
        order.command,
        is_colocated=True if order.target.startswith(LOCAL) or not order.target else None,
        server=server,
    )
    artifacts.write(order.out, result, described, ran.recorded)
    report.write(order.out)
    return result


async def _told_by(place: Place) -> dict[str, Any] | None:
    """Return the settings of an embedded server and of its store; another one does not tell."""
    if place.server is None:
        return None
    store = await store_settings(place.server.store_url)
    return {**place.server.config.shown(), "store": store}


async def _conducted(
    scenario: Scenario, place: Place, screen: Screen, interrupted: asyncio.Event
) -> tuple[Run, dict[str, Any]]:
    """Return the run to report, and what a search for the limit found besides."""
    if scenario.saturate is not None:
        return await search(scenario, place, screen, interrupted)
    return await Conductor(scenario, place, screen, interrupted).run(), {}


@contextmanager
def _interruptible() -> Iterator[asyncio.Event]:
    """Let the first signal set an event; the signals after it do what they always do."""
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        for number in SIGNALS:
            loop.remove_signal_handler(number)

    def note() -> None:
        interrupted.set()
        end()

    for number in SIGNALS:
        loop.add_signal_handler(number, note)
    try:
        yield interrupted
    finally:
        end()
