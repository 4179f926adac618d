"""result.json holds what was measured, in the shape its schema describes."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from holdfast_bench.harness.recording import Recorded
from holdfast_bench.harness.results import assemble, schema
from holdfast_bench.harness.run import INTERRUPTED, LOST
from holdfast_server.checks import Verdict
from tests.unit.harness.json_schema import problems
from tests.unit.harness.runs import DATE, run

MS = 1_000_000


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return assemble(run(), DATE)


def test_result_is_what_its_schema_describes(result: dict[str, Any]) -> None:
    assert problems(result, schema()) == []
    assert result == json.loads(json.dumps(result))


@pytest.mark.parametrize(
    "changes",
    [
        {"recorded": Recorded(), "phases": [], "steady_s": 0.0},
        {"health": None, "units": None, "verdicts": [], "end_reason": LOST},
    ],
    ids=["nothing recorded", "target lost"],
)
def test_result_of_a_run_cut_short_is_what_the_schema_describes(changes: dict[str, Any]) -> None:
    assert problems(assemble(run(**changes), DATE), schema()) == []


def test_search_for_the_limit_may_tell_its_steps(result: dict[str, Any]) -> None:
    step = {
        "rate": 200.0,
        "rps": 398.5,
        "p50": 2 * MS,
        "p99": 9 * MS,
        "dropped": 0,
        "value": 9 * MS,
        "holds": True,
        "is_valid": True,
        "reasons": [],
    }
    found = {"objective": "p99 < 50ms", "sustained_rate": 200.0, "steps": [step]}

    assert problems({**result, "saturation": found}, schema()) == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (["schema_version"], 2, "result.schema_version: 2 is not 1"),
        (["count"], "many", "result.count: 'many' is not of type integer"),
        (["count"], -1, "result.count: -1 is below 0"),
        (["sessions", "lost"], 1, "result.sessions.lost is unknown"),
        (["series", 0, "phase"], "lunch", "result.series[0].phase: 'lunch' is none of"),
        (["rpcs", "Reserve", "response", "p99"], None, "p99: None is not of type integer"),
        (["generator", "is_valid"], 1, "is_valid: 1 is not of type boolean"),
    ],
)
def test_schema_tells_what_is_wrong(
    result: dict[str, Any], path: list[Any], value: Any, problem: str
) -> None:
    broken: Any = deepcopy(result)
    place = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    [found] = problems(broken, schema())
    assert problem in found


def test_every_key_of_the_schema_is_required(result: dict[str, Any]) -> None:
    for name in result:
        assert problems({key: value for key, value in result.items() if key != name}, schema()) == [
            f"result.{name} is missing"
        ]


def test_whole_speaks_ghz(result: dict[str, Any]) -> None:
    assert result["name"] == "made"
    assert result["date"] == "2026-03-04T05:06:07.000+00:00"
    assert result["total"] == 4.0
    assert result["count"] == 90 + 72 + 1
    assert result["rps"] == result["count"] / 4.0
    assert result["fastest"] == 2 * MS
    assert result["slowest"] == 10_000 * MS
    assert result["statusCodeDistribution"] == {"OK": 153, "Unavailable": 9, "DeadlineExceeded": 1}
    assert result["errorDistribution"] == {"OVERLOADED": 9, "DEADLINE_EXCEEDED": 1}
    percentages = [row["percentage"] for row in result["latencyDistribution"]]
    assert percentages == [10, 25, 50, 75, 90, 95, 99, 99.9, 99.99]


def test_sold_out_is_an_answer_and_shed_is_apart(result: dict[str, Any]) -> None:
    reserve = result["rpcs"]["Reserve"]

    assert reserve["count"] == 90
    assert reserve["outcomes"] == {
        "ok": 72,
        "sold_out": 9,
        "refused": 0,
        "throttled": 0,
        "shed": 9,
        "deadline": 0,
        "error": 0,
    }
    assert reserve["reasons"] == {"OUT_OF_STOCK": 9, "OVERLOADED": 9}


def test_times_are_in_ns_to_three_digits(result: dict[str, Any]) -> None:
    response = result["rpcs"]["Reserve"]["response"]

    # 11 to 100 ms, evenly.
    assert response["p50"] == pytest.approx(55 * MS, rel=0.001)
    assert response["p99_9"] == response["max"] == 100 * MS
    assert response["mean"] == 55.5 * MS
    assert result["rpcs"]["Reserve"]["service"]["max"] == 99.9 * MS


def test_calls_of_the_warm_up_are_in_the_series_alone(result: dict[str, Any]) -> None:
    assert sum(row["ok"] for row in result["series"]) == 2 * 80
    assert sum(rpc["outcomes"]["ok"] for rpc in result["rpcs"].values()) == 2 * 72


def test_series_has_every_second_those_without_an_answer_too(result: dict[str, Any]) -> None:
    series = result["series"]

    assert [row["t"] for row in series] == list(range(15))
    assert [row["phase"] for row in series[:7]] == ["warm_up", *["steady"] * 4, *["drain"] * 2]
    assert (series[3]["p50"], series[3]["p99"], series[3]["max"]) == (None, None, None)
    assert (series[4]["offered"], series[4]["started"]) == (1, 0)
    assert series[14]["deadline"] == 1
    assert series[14]["max"] == 10_000 * MS


def test_sessions_and_units_are_told(result: dict[str, Any]) -> None:
    assert result["sessions"] == {
        "planned": 101,
        "started": 100,
        "dropped": 1,
        "finished": 100,
        "alive_max": 1,
    }
    assert result["units"] == {"on_sale": 1_000, "sold": 80, "oversold": 0, "held": 2}


def test_generator_tells_its_own_lag(result: dict[str, Any]) -> None:
    assert result["generator"]["is_valid"] is True
    assert result["generator"]["lag"]["max"] == 0.1 * MS
    assert result["generator"]["cpu_us_per_operation"] == 42.0


BROKEN = [Verdict("never_oversold", False, 100, ["sku-0: 3 units too many"])]
UNMET = replace(run().scenario, thresholds=("max < 9s",))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"verdicts": BROKEN}, 99),
        ({"scenario": UNMET}, 99),
        ({"end_reason": INTERRUPTED}, 1),
        ({"units": None}, 1),
        ({"end_reason": INTERRUPTED, "verdicts": BROKEN}, 99),
    ],
    ids=["good", "promise", "threshold", "interrupted", "not judged", "interrupted and broken"],
)
def test_exit_code_is_99_for_what_failed_and_1_for_what_did_not_run(
    changes: dict[str, Any], code: int
) -> None:
    assert assemble(run(**changes), DATE)["exit_code"] == code


def test_generator_that_could_not_be_judged_is_not_valid() -> None:
    generator = assemble(run(health=None), DATE)["generator"]

    assert generator["is_valid"] is False
    assert generator["reasons"] == ["the run ended before its generator could be judged"]
