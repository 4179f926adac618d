"""A run that has failed a threshold ends early, is reported, and is no success."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from holdfast_bench.harness.aborting import SoFar, broken
from holdfast_bench.harness.conductor import Conductor
from holdfast_bench.harness.generator import Told
from holdfast_bench.harness.live import SilentScreen
from holdfast_bench.harness.recording import Outcome, Recorder, merge
from holdfast_bench.harness.results import assemble, figures, times
from holdfast_bench.harness.run import ABORTED, placed
from holdfast_bench.harness.scenario import (
    Arrivals,
    Ends,
    Expectation,
    Life,
    Phases,
    Scenario,
    ScenarioError,
    load,
)
from tests.fake_stock import Behaviour, fake_stock
from tests.unit.harness.runs import DATE, recorder, run

FEW_ERRORS = Expectation("error_rate < 5%", abort_on_fail=True, after_s=2.0)


def told_of(made: Recorder) -> Told:
    told = Told()
    told.take({"recorded": made.encode(), "alive": 0, "cpu_s": [0.0, 0.0]})
    return told


def with_errors(share: float) -> dict[str, Any]:
    """Return the figures of 100 calls of which so many got an error."""
    made = Recorder(0.0)
    for number in range(100):
        outcome = Outcome.ERROR if number < share * 100 else Outcome.OK
        made.record("Reserve", "steady", 1.0, 1.0, 1.01, outcome)
    return SoFar([told_of(made)]).figures(2.0)


# ---- What is judged ----


def test_a_threshold_that_fails_is_named_once_its_time_has_come() -> None:
    expectations = [Expectation("p99 < 1s", abort_on_fail=True), FEW_ERRORS]
    assert broken(expectations, 2.0, with_errors(0.06)) == "error_rate < 5%"
    assert broken(expectations, 1.9, with_errors(0.06)) is None
    assert broken(expectations, 2.0, with_errors(0.04)) is None


def test_a_figure_without_a_value_yet_fails_nothing() -> None:
    commits = Expectation("commit.p99 < 1ms", abort_on_fail=True)
    assert broken([commits], 60.0, with_errors(0.0)) is None


def test_figures_so_far_are_those_of_everything_told() -> None:
    whole, told = recorder().encode(), Told()
    so_far = SoFar([told, told_of(recorder())])
    for row in whole["seconds"]:  # told bit by bit, and looked at each time
        told.take({"recorded": {**whole, "seconds": [row]}, "alive": 0, "cpu_s": [0.0, 0.0]})
        found = so_far.figures(4.0)
    both = merge(whole, whole)
    assert found == {**figures(both, 4.0), "generator": {"lag": times(both.lag)}}


# ---- A run ----


@pytest.mark.parametrize("fails", [True, False])
async def test_a_run_ends_when_it_has_failed(fails: bool) -> None:
    plan = Scenario(
        connections=1,
        transport="unary",
        arrivals=Arrivals(rate=50.0),
        life=Life(browse="none", ends=Ends(commit=0.0, die=1.0)),
        phases=Phases(warm_up_s=0.0, steady_s=600.0 if fails else 3.0, drain_s=1.0),
        thresholds=("count > 0", FEW_ERRORS),
    )
    async with fake_stock(Behaviour(fails=fails)) as fake, placed(plan, fake.target) as place:
        ran = await Conductor(plan, place, SilentScreen(), asyncio.Event()).run()
    result = assemble(ran, datetime.now(UTC))
    assert result["end_reason"] == (ABORTED + "error_rate < 5%" if fails else "completed")
    assert result["exit_code"] == (99 if fails else 0)
    assert result["count"] >= 50
    assert [one["holds"] for one in result["thresholds"]] == [True, not fails]


def test_an_aborted_run_has_failed_even_if_its_last_calls_were_good() -> None:
    assert assemble(run(end_reason=f"{ABORTED}p99 < 1s"), DATE)["exit_code"] == 99


# ---- What is read ----


def test_a_threshold_is_read_as_text_or_as_a_table(tmp_path: Path) -> None:
    file = tmp_path / "guarded.toml"
    file.write_text(
        """thresholds = [
            "oversold == 0",
            { expression = "error_rate < 5%", abort_on_fail = true, after_s = 2 },
        ]""",
        encoding="utf-8",
    )
    scenario = load(str(file))
    assert scenario.thresholds == ("oversold == 0", FEW_ERRORS)
    assert scenario.expressions == ["oversold == 0", "error_rate < 5%"]
    assert scenario.aborting == [FEW_ERRORS]
    assert load(str(file), {"thresholds": "p99 < 1s"}).aborting == []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"expression": "p98 < 1s"}, r"thresholds\[1\].expression is not a threshold: 'p98 < 1s'"),
    ({"expresion": "p99 < 1s"}, r"thresholds\[1\].expresion is not a key; known here: expression"),
    ({"abort_on_fail": "yes"}, r"thresholds\[1\].abort_on_fail must be true or false, not 'yes'"),
    ({"abort_on_fail": 1}, r"thresholds\[1\].abort_on_fail must be true or false, not 1"),
    ({"after_s": True}, r"thresholds\[1\].after_s must be a number, not True"),
    ({"after_s": -1}, r"thresholds\[1\].after_s must be at least 0, not -1.0"),
    ({"after_s": 4}, r"thresholds\[1\].after_s must be below steady_s, 4"),
    ({"abort_on_fail": False}, r"thresholds\[1\].after_s is of use only with abort_on_fail = true"),
    *(
        ({"expression": figure}, r"thresholds\[1\].expression is known only when a run is over")
        for figure in ("violations == 0", "on_sale > 5", "oversold == 0", "loop_lag.p99 < 5ms")
    ),
]


@pytest.mark.parametrize(("changes", "problem"), WRONG)
def test_a_wrong_table_is_refused_by_its_key(changes: dict[str, Any], problem: str) -> None:
    given = {"expression": "p99 < 1s", "abort_on_fail": True, "after_s": 1, **changes}
    with pytest.raises(ScenarioError, match=problem):
        load("smoke", {"thresholds": ["p50 < 1s", given]})
