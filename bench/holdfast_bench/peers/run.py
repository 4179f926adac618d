"""Compare Holdfast with its peers under one load in one run, in turns.

A turn is a run of the load harness: the sessions, times, outcomes and the judgement of the
generator are those of `holdfast bench run`.  Noise on a shared machine drifts, so each round
measures everyone, every second round backwards, and each on a server and a store of its own,
started for the turn.  The table has medians of the rounds.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from holdfast_bench.harness.conductor import Conductor
from holdfast_bench.harness.live import SilentScreen
from holdfast_bench.harness.run import Place
from holdfast_bench.harness.scenario import Scenario, load
from holdfast_bench.peers.charting import draw
from holdfast_bench.peers.postgresql import NONE, installation
from holdfast_bench.peers.processes import Contestant, Cpu, started
from holdfast_bench.peers.results import Result, Turn
from holdfast_bench.peers.terms import PeerUnavailable
from holdfast_bench.workload import catalogue

LOADS = ("uniform", "flash-sale", "cart")
ROUNDS, SECONDS = 3, 3.0
Tell = Callable[[str], None]


def load_of(name: str, seconds: float = SECONDS, rate: float = 0.0) -> Scenario:
    """Return a load; one with a rate starts that many sessions a second, whoever is done.

    Raises ScenarioError.
    """
    overrides: dict[str, Any] = {"phases.steady_s": seconds}
    if rate:
        overrides |= {"arrivals.kind": "poisson", "arrivals.rate": rate, "arrivals.sessions": 0}
    return load(str(files("holdfast_bench.peers") / "loads" / f"{name}.toml"), overrides)


def run(
    scenario: Scenario,
    names: Sequence[str],
    out: Path | None = None,
    *,
    rounds: int = ROUNDS,
    tell: Tell = lambda _line: None,
) -> list[Result]:
    """Measure every contestant each round; write peers.json and charts/peers.png into `out`.

    Raises PeerUnavailable when one of them does not start, HarnessFault.
    """
    if installation() is None and any(name.startswith("postgres") for name in names):
        raise PeerUnavailable(f"{NONE}; measure without it: --only")
    turns: dict[str, list[Turn]] = defaultdict(list)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            tell(f"round {number + 1} of {rounds}: {name}")
            with started(name, scenario.catalogue) as contestant:
                turn = take_turn(contestant, scenario)
            turns[name].append(turn)
            for doubt in turn.doubts:
                tell(f"  not valid: {doubt}")
            for promise in turn.broken:
                tell(f"  broken: {promise}")
    results = [Result(name, tuple(turns[name])) for name in names]
    if out:
        _write(out, scenario, rounds, results)
    return results


def take_turn(contestant: Contestant, scenario: Scenario) -> Turn:
    """Load a contestant that has the items of the scenario on sale.  Raises HarnessFault."""
    read: list[Cpu] = []

    async def conduct() -> Turn:
        place = Place(
            contestant.target,
            skus=catalogue(scenario.catalogue.skus),
            meter=lambda: read.append(contestant.cpu()),
        )
        ran = await Conductor(scenario, place, SilentScreen(), asyncio.Event()).run()
        return Turn(ran, read[-1].since(read[0]), contestant.count())

    # Not on uvloop, which starts processes by a fork that gRPC would have a say in.
    return asyncio.run(conduct())


def _write(out: Path, scenario: Scenario, rounds: int, results: Sequence[Result]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "load": scenario.as_read(),
        "rounds": rounds,
        "seconds": scenario.phases.steady_s,
        "contestants": [result.as_json() for result in results],
    }
    (out / "peers.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    draw(document["contestants"], scenario.name, out / "charts" / "peers.png")
