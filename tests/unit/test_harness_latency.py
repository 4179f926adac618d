"""What the harness reports is what a server of known delays did, and what its callers waited."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from holdfast_bench.harness.conductor import Conductor
from holdfast_bench.harness.live import SilentScreen
from holdfast_bench.harness.run import Run, placed
from holdfast_bench.harness.scenario import (
    Arrivals,
    Catalogue,
    Ends,
    Life,
    Phases,
    Scenario,
)
from tests.fake_stock import Behaviour, fake_stock

# Shares of calls, and their delays.  Each percentile of the test falls well within one of them.
PROFILE = ((0.60, 1.0), (0.36, 1.5), (0.035, 2.0), (0.005, 2.5))
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
TOLERANCE = 0.02
ATTEMPTS = 5  # a busy machine adds to every time; a wrong figure is wrong each time
CALLS, STEADY_S = 1_000, 4.0


def scenario(**changes: object) -> Scenario:
    """Return agents that reserve once and are never seen again."""
    return Scenario(
        **{
            "name": "known",
            "connections": 2,
            "catalogue": Catalogue(skus=10),
            "arrivals": Arrivals(rate=CALLS / STEADY_S),
            "life": Life(browse="none", ends=Ends(commit=0.0, die=1.0)),
            "phases": Phases(warm_up_s=0.0, steady_s=STEADY_S, drain_s=10.0),
            **changes,
        }
    )


async def ran(scenario: Scenario, target: str) -> Run:
    async with placed(scenario, target) as place:
        return await Conductor(scenario, place, SilentScreen(), asyncio.Event()).run()


@pytest.mark.parametrize("transport", ["coalesced", "unary"])
async def test_percentiles_are_those_of_the_server_within_2_percent(transport: str) -> None:
    for _attempt in range(ATTEMPTS):
        reported, server = await measured(transport)
        if reported == pytest.approx(server, rel=TOLERANCE):
            break
    assert reported == pytest.approx(server, rel=TOLERANCE)


async def measured(transport: str) -> tuple[list[float], list[float]]:
    """Return the percentiles that the harness reports, and those the server measured."""
    delays = [delay for share, delay in PROFILE for _ in range(round(share * CALLS))]
    Random(1).shuffle(delays)
    # So many connections that no call waits for the frames in flight on its own.
    plan = scenario(transport=transport, connections=500)
    async with fake_stock(Behaviour(delays)) as fake:
        run = await ran(plan, fake.target)
        took_s = await fake.took_s()
    times = run.recorded.rpcs["Reserve"].response
    assert times.count == len(took_s) == CALLS
    reported = [us / 1e6 for us in times.percentiles_us(PERCENTILES)]
    return reported, [took_s[round(share / 100 * CALLS) - 1] for share in PERCENTILES]


async def test_a_stall_is_in_the_response_times_of_all_who_waited() -> None:
    plan = scenario(connections=1)
    async with fake_stock(Behaviour(freezes_at=400)) as fake:
        run = await ran(plan, fake.target)
    calls = run.recorded.rpcs["Reserve"]
    (response_us,), (service_us,) = (
        times.percentiles_us((90.0,)) for times in (calls.response, calls.service)
    )
    # A quarter of the starts fall into the second without answers; two frames were in flight.
    assert response_us > 300_000
    assert service_us < response_us / 4
    assert run.recorded.sessions.started == CALLS


async def test_two_processes_amount_to_the_same_as_one() -> None:
    plan = scenario(
        life=Life(browse="get_stock", lines=(1, 3), ends=Ends(0.6, 0.2, 0.1, 0.1)),
        arrivals=Arrivals(kind="poisson", rate=200.0),
        phases=Phases(warm_up_s=0.5, steady_s=1.0, drain_s=5.0),
    )
    counts = []
    for processes in (1, 2):
        async with fake_stock(Behaviour()) as fake:
            run = await ran(scenario_of(plan, processes), fake.target)
        counts.append((counted(run), run.recorded.sessions))
    assert counts[0] == counts[1]
    assert counts[0][1].finished == counts[0][1].planned > 200


def scenario_of(plan: Scenario, processes: int) -> Scenario:
    return Scenario(**{**vars(plan), "processes": processes})


def counted(run: Run) -> dict[tuple[str, str], int]:
    """Return calls by RPC and outcome, in whatever phase."""
    found: dict[tuple[str, str], int] = {}
    for second in run.recorded.seconds.values():
        for by_rpc in (second.measured, second.unmeasured):
            for rpc, calls in by_rpc.items():
                for outcome, count in calls.outcomes.items():
                    found[rpc, outcome] = found.get((rpc, outcome), 0) + count
    return found


async def test_a_server_that_oversells_is_caught() -> None:
    plan = scenario(
        catalogue=Catalogue(skus=1, units=5),
        life=Life(browse="none"),
        phases=Phases(warm_up_s=0.0, steady_s=0.5, drain_s=5.0),
    )
    async with fake_stock(Behaviour(units=5, oversells=True)) as fake:
        run = await ran(plan, fake.target)
    (verdict,) = run.verdicts
    assert verdict.name == "agents_not_oversold"
    assert not verdict.holds
    assert run.units is not None
    assert run.units.oversold == run.units.sold - 5 > 0


async def test_a_server_that_refuses_in_time_is_not() -> None:
    plan = scenario(
        catalogue=Catalogue(skus=1, units=5),
        life=Life(browse="none"),
        phases=Phases(warm_up_s=0.0, steady_s=0.5, drain_s=5.0),
    )
    async with fake_stock(Behaviour(units=5)) as fake:
        run = await ran(plan, fake.target)
    assert all(verdict.holds for verdict in run.verdicts)
    assert run.units is not None
    assert (run.units.sold, run.units.oversold) == (5, 0)
    assert run.recorded.rpcs["Reserve"].outcomes["sold_out"] == run.recorded.sessions.started - 5
