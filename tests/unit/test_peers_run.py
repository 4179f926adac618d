"""The comparison's arithmetic: turns, medians, what counts as oversold, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from holdfast_bench.harness.gate import Units
from holdfast_bench.harness.health import Health
from holdfast_bench.harness.recording import Outcome, Recorder, merge
from holdfast_bench.harness.run import LOST, Place, Run
from holdfast_bench.harness.scenario import Scenario
from holdfast_bench.peers.command import peers_command, table
from holdfast_bench.peers.processes import Cpu
from holdfast_bench.peers.results import Result, Turn
from holdfast_bench.peers.run import LOADS, load_of
from holdfast_bench.peers.serving import counted
from holdfast_bench.peers.terms import Sale
from holdfast_server.checks import Verdict

PNG = b"\x89PNG"
STEADY_S = 2.0
NONE_TOLD = Units(on_sale=1_000, sold=0, oversold=0, held=0)
FINE = Health({"p99": 1.0, "max": 2.0}, 1.0, 0.1, 300.0, [])


def turn(
    operations: int,
    ms: float,
    *,
    units: int | None = 0,
    told: Units | None = NONE_TOLD,
    **changes: Any,
) -> Turn:
    """A turn of so many steady calls that took so long, the last sold out, and as many others."""
    recorder = Recorder(0.0)
    for number in range(operations):
        outcome = Outcome.SOLD_OUT if number == 0 else Outcome.OK
        recorder.record("Reserve", "warm_up", 0.0, 0.0, ms / 1e3, Outcome.ERROR)
        recorder.record("Reserve", "steady", 1.0, 1.0, 1.0 + ms / 1e3, outcome)
    facts: dict[str, Any] = {"steady_s": STEADY_S, "health": FINE, "units": told, **changes}
    recorded = merge(recorder.encode())
    made = Run(Scenario(), Place("127.0.0.1:1"), "bench-made", recorded=recorded, **facts)
    cpu = Cpu(operations / 100, operations / 1000)
    return Turn(made, cpu, None if units is None else {"oversold": units})


def test_a_result_is_the_median_of_its_turns_and_the_sum_of_its_errors() -> None:
    result = Result("any", (turn(100, 1), turn(300, 3), turn(200, 2, units=4)))

    assert result.as_json()["operations_per_s"] == 100.0
    assert result.service_ms(50.0, 99.0) == pytest.approx([2.0, 3.0], rel=1e-2)
    assert result.cpu_ms() == pytest.approx((5.0, 0.5)), "over all calls, not only steady ones"
    assert (result.oversold, result.errors, result.valid) == (4, 0, 3)
    assert result.is_broken


def test_what_decides_nothing_has_oversold_nothing_and_is_not_said_to_be_sound() -> None:
    told = Verdict("agents_not_oversold", False, 1, ["SKU-000000: 9 units sold, 1 on sale"])
    result = Result("echo", (turn(100, 1, units=None, verdicts=[told]),))

    assert result.oversold is None
    assert not result.is_broken
    cells = [list(column.cells) for column in table([result], Scenario()).columns]
    assert cells[5] == ["-"]


def test_callers_who_were_told_too_much_are_counted_too() -> None:
    told = Units(on_sale=10, sold=13, oversold=3, held=0)

    assert turn(10, 1).oversold == 0
    assert turn(10, 1, told=told).oversold == 3
    assert turn(10, 1, told=told, units=4).oversold == 4


def test_a_broken_check_is_reported_of_what_keeps_a_ledger() -> None:
    broken = Verdict("exactly_one_end", False, 10, ["two ends"])

    result = Result("holdfast", (turn(10, 1, verdicts=[broken]),))

    assert result.is_broken
    assert result.as_json()["turns"][0]["broken"] == ["exactly_one_end"]


def test_a_turn_of_a_slow_generator_is_marked() -> None:
    slow = FINE._replace(reasons=["calls left late"])
    result = Result("any", (turn(10, 1), turn(10, 1, health=slow)))

    assert result.turns[1].doubts == ["calls left late"]
    *_others, valid = table([result], Scenario()).columns
    assert list(valid.cells) == ["1/2"]


def test_a_turn_that_could_not_be_judged_is_marked() -> None:
    assert turn(10, 1, told=None).doubts == ["not judged"]
    assert turn(10, 1, end_reason=LOST).doubts == [LOST]


def test_oversold_is_counted_for_each_item_by_itself() -> None:
    stock = {"a": 2, "b": 5}
    sales = {"a": Sale(sold=2, held=1), "b": Sale(sold=1, held=0), "c": Sale(sold=1, held=0)}

    found = counted(stock, sales)

    assert found
    assert (found["on_sale"], found["sold"], found["held"], found["oversold"]) == (7, 4, 1, 2)


@pytest.mark.parametrize("name", LOADS)
def test_a_load_is_a_scenario_of_agents_without_a_pause_or_of_a_rate(name: str) -> None:
    closed, open_ = load_of(name, 2.0), load_of(name, 2.0, rate=50.0)

    assert (closed.name, closed.transport, closed.phases.steady_s) == (name, "unary", 2.0)
    assert closed.description
    assert not closed.arrivals.is_open
    assert (open_.arrivals.is_open, open_.arrivals.rate, open_.arrivals.sessions) == (True, 50, 0)
    assert open_.life == closed.life


def test_a_turn_is_a_run_of_the_harness_and_the_files_say_what_it_found(tmp_path: Path) -> None:
    words = ["--only", "holdfast", "--rounds", "1", "--seconds", "0.3", "--out", str(tmp_path)]

    ended = CliRunner().invoke(
        peers_command, [*words, "--load", "flash-sale", "--rate", "50", "--json"]
    )

    assert ended.exit_code == 0, ended.output
    report = json.loads((tmp_path / "peers.json").read_text())
    assert report["contestants"] == json.loads(ended.stdout)
    assert (report["load"]["transport"], report["load"]["arrivals"]["rate"]) == ("unary", 50)
    (found,) = report["contestants"]
    assert found["operations_per_s"] > 0
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert (found["oversold"], found["errors"]) == (0, 0)
    assert found["cpu_s_per_1000"]["server"] > 0
    (told,) = found["turns"]
    assert told["units"]["sold"] == told["units_told"]["sold"] > 0
    assert told["generator"]["cpu_us_per_operation"] > 0
    assert told["broken"] == []
    assert (tmp_path / "charts" / "peers.png").read_bytes().startswith(PNG)
