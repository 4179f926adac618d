"""The plan of starts: exact in number, in order, and the same however it is shared."""

from __future__ import annotations

from itertools import islice, pairwise
from math import ceil
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_bench.harness.pacer import count, segments, share, starts
from holdfast_bench.harness.scenario import Arrivals

RATES = st.floats(0.1, 300)
SECONDS = st.floats(0.1, 20)


@st.composite
def arrivals(
    draw: st.DrawFn, *, kinds: tuple[str, ...] = ("constant", "ramp", "steps")
) -> Arrivals:
    rate, rate_to = sorted((draw(RATES), draw(RATES)))
    kind = draw(st.sampled_from(kinds))
    if kind == "ramp" and draw(st.booleans()):
        rate, rate_to = rate_to, rate
    return Arrivals(
        kind=kind,
        rate=rate,
        rate_to=rate_to,
        ramp_s=draw(st.floats(0, 30)),
        step=draw(st.floats(1, 500)),
        step_s=draw(st.floats(0.5, 10)),
        sessions=draw(st.sampled_from((0, 0, 7))),
    )


ANY = arrivals(kinds=("constant", "ramp", "steps", "poisson"))


def planned(plan: Arrivals, seconds: float, seed: int = 1) -> list[float]:
    return list(starts(plan, seconds, Random(seed)))


def test_constant_starts_are_evenly_apart_and_the_first_is_at_once() -> None:
    assert planned(Arrivals(rate=4.0), 1.0) == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(("rate", "seconds"), [(0.1, 30.0), (1_000.0, 0.3), (333.3, 7.0), (3, 0.1)])
def test_constant_starts_number_rate_times_seconds(rate: float, seconds: float) -> None:
    plan = planned(Arrivals(rate=rate), seconds)

    assert len(plan) == ceil(rate * seconds - 1e-9)


def test_ramp_starts_come_closer_together_up_to_the_last_rate() -> None:
    plan = planned(Arrivals(kind="ramp", rate=10, rate_to=100), 10.0)

    assert len(plan) == 550
    gaps = [after - before for before, after in pairwise(plan)]
    assert all(after < before for before, after in pairwise(gaps))
    assert gaps[-1] == pytest.approx(1 / 100, rel=0.02)


def test_ramp_holds_its_last_rate_when_it_is_shorter_than_the_run() -> None:
    plan = planned(Arrivals(kind="ramp", rate=10, rate_to=20, ramp_s=2.0), 4.0)

    assert len(plan) == 30 + 40
    assert [moment for moment in plan if moment >= 2.0] == pytest.approx(
        [2.0 + number / 20 for number in range(40)]
    )


def test_steps_add_to_the_rate_up_to_the_last_one() -> None:
    steps = Arrivals(kind="steps", rate=10, step=10, step_s=1.0, rate_to=25)
    plan = planned(steps, 4.5)

    in_second = [sum(int(moment) == second for moment in plan) for second in range(5)]
    assert in_second == [10, 20, 25, 25, 13]
    assert [segment.rate for segment in segments(steps, 4.5)] == [10, 20, 25, 25, 25]


def test_poisson_gaps_are_exponential_and_those_of_the_seed() -> None:
    plan = planned(Arrivals(kind="poisson", rate=1_000), 20.0)

    assert plan == planned(Arrivals(kind="poisson", rate=1_000), 20.0)
    assert plan != planned(Arrivals(kind="poisson", rate=1_000), 20.0, seed=2)
    # 20,000 expected, deviation 141; of exponential gaps 1/e are longer than the mean.
    assert abs(len(plan) - 20_000) < 4 * 141
    gaps = [after - before for before, after in pairwise(plan)]
    assert sum(gap > 1 / 1_000 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.015)


def test_closed_agents_begin_within_the_ramp() -> None:
    closed = Arrivals(kind="closed", sessions=4, ramp_s=2.0)

    assert planned(closed, 10.0) == [0.0, 0.5, 1.0, 1.5]
    assert planned(Arrivals(kind="closed", sessions=3), 10.0) == [0.0, 0.0, 0.0]
    assert count(closed, 10.0) == 4


def test_starts_end_when_all_sessions_have_come() -> None:
    assert planned(Arrivals(rate=2.0, sessions=3), 60.0) == [0.0, 0.5, 1.0]


def test_plan_of_a_million_a_second_is_made_as_it_is_needed() -> None:
    plan = starts(Arrivals(rate=1_000_000), 86_400.0, Random(1))

    assert list(islice(plan, 3)) == [0.0, 1e-6, 2e-6]


@settings(deadline=None)
@given(arrivals(), SECONDS)
def test_number_of_deterministic_starts_is_exact(plan: Arrivals, seconds: float) -> None:
    assert len(planned(plan, seconds)) == count(plan, seconds)


@settings(deadline=None)
@given(ANY, SECONDS)
def test_starts_ascend_within_the_time(plan: Arrivals, seconds: float) -> None:
    moments = planned(plan, seconds)

    assert all(0 <= moment <= seconds for moment in moments)
    assert all(before <= after for before, after in pairwise(moments))


@settings(deadline=None)
@given(arrivals(), SECONDS)
def test_starts_up_to_any_moment_are_as_many_as_the_rates_make(
    plan: Arrivals, seconds: float
) -> None:
    expected = 0.0
    moments = planned(plan, seconds)
    for segment in segments(plan, seconds):
        expected += segment.expected
        before = sum(moment < segment.ends for moment in moments)
        assert abs(before - min(expected, plan.sessions or expected)) <= 1 + 1e-6


@settings(deadline=None)
@given(ANY, SECONDS, st.integers(1, 9))
def test_shares_of_any_number_of_processes_make_the_whole(
    plan: Arrivals, seconds: float, processes: int
) -> None:
    shares = [
        list(share(starts(plan, seconds, Random(3)), index, processes))
        for index in range(processes)
    ]

    whole = list(enumerate(planned(plan, seconds, seed=3)))
    assert sorted(each for one in shares for each in one) == whole
    sizes = [len(one) for one in shares]
    assert max(sizes) - min(sizes) <= 1
