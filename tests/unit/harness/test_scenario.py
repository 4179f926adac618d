"""Scenarios: what is shipped, what is read, and every way in which one can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast_bench.harness.scenario import (
    Arrivals,
    Ends,
    Fault,
    Saturate,
    Scenario,
    ScenarioError,
    Think,
    build,
    load,
    shipped,
)

SHIPPED = [
    "cart",
    "catalogue",
    "failover",
    "flash-sale",
    "saturate",
    "smoke",
    "soak",
    "watchers",
]


def test_scenarios_of_every_purpose_are_shipped() -> None:
    assert shipped() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_scenario_is_valid_and_says_what_it_is(name: str) -> None:
    scenario = load(name)

    assert scenario.name == name
    assert scenario.description
    assert {"oversold == 0", "violations == 0"} <= set(scenario.thresholds)


@pytest.mark.parametrize("name", ["flash-sale", "catalogue", "soak"])
def test_ten_thousand_sessions_are_alive_at_once(name: str) -> None:
    scenario = load(name)
    think, pay = scenario.life.think, scenario.life.pay

    if name == "flash-sale":
        arriving_s = scenario.arrivals.sessions / scenario.arrivals.rate
        assert scenario.arrivals.sessions == 10_000
        assert think.low_s >= arriving_s, "nobody leaves before the last one has come"
    else:
        mean_s = (think.low_s + think.high_s + pay.low_s + pay.high_s) / 2
        assert 10_000 <= scenario.arrivals.rate * mean_s <= scenario.sessions_max
        assert scenario.phases.warm_up_s >= think.high_s + pay.high_s


def test_defaults_make_a_scenario() -> None:
    scenario = Scenario()

    assert scenario.sessions_max == 10_000
    assert scenario.fault is None
    assert scenario.saturate is None
    assert scenario.phases.starting_s == 40.0


def test_scenario_survives_being_written_as_json_and_built_again() -> None:
    for name in SHIPPED:
        scenario = load(name)
        assert build(Scenario, json.loads(json.dumps(scenario.as_read()))) == scenario


def test_file_is_read_by_its_path_and_named_after_it(tmp_path: Path) -> None:
    file = tmp_path / "rush-hour.toml"
    file.write_text('seed = 7\n[arrivals]\nkind = "ramp"\nrate = 5\n', encoding="utf-8")

    scenario = load(str(file))

    assert scenario.name == "rush-hour"
    assert scenario.seed == 7
    assert scenario.arrivals == Arrivals(kind="ramp", rate=5.0)


def test_overrides_win_and_may_be_text() -> None:
    scenario = load(
        "smoke",
        {
            "seed": "9",
            "arrivals.rate": "12.5",
            "life.lines": "1,3",
            "life.think.kind": "constant",
            "thresholds": "p99 < 1s, dropped == 0",
            "fault.at_s": "1",
        },
    )

    assert scenario.seed == 9
    assert scenario.arrivals.rate == 12.5
    assert scenario.life.lines == (1, 3)
    assert scenario.life.think.kind == "constant"
    assert scenario.thresholds == ("p99 < 1s", "dropped == 0")
    assert scenario.fault == Fault(at_s=1.0)


WRONG: list[tuple[dict[str, Any], str]] = [
    # Keys
    ({"sedd": 1}, "sedd is not a key; known here: name, description, seed"),
    ({"arrivals.rat": 1}, "arrivals.rat is not a key; known here: kind, rate"),
    ({"life.ends.explode": 1}, "life.ends.explode is not a key"),
    ({"description.of": 1}, "description.of is not a key"),
    ({"phases": 3}, "phases must be a table, not 3"),
    # Rates
    ({"arrivals.rate": 0}, "arrivals.rate must be above 0, not 0.0"),
    ({"arrivals.rate": -5}, "arrivals.rate must be above 0, not -5.0"),
    ({"arrivals.rate": 1_000_001}, "arrivals.rate must be at most 1,000,000.0, not 1000001.0"),
    ({"arrivals.rate": "nan"}, "arrivals.rate must be a finite number"),
    ({"arrivals.rate": "inf"}, "arrivals.rate must be a finite number"),
    ({"arrivals.rate": "fast"}, "arrivals.rate must be a number, not 'fast'"),
    ({"arrivals.rate": True}, "arrivals.rate must be a number, not True"),
    ({"arrivals.kind": "burst"}, "arrivals.kind must be one of constant, ramp, steps"),
    ({"arrivals.kind": "steps", "arrivals.rate_to": 1}, "arrivals.rate_to must be at least rate"),
    ({"arrivals.step_s": 0}, "arrivals.step_s must be above 0"),
    ({"arrivals.kind": "closed"}, "arrivals.sessions of closed arrivals must be 1 to 100,000"),
    (
        {"arrivals.kind": "closed", "arrivals.sessions": 501},
        "arrivals.sessions must be at most sessions_max, 500",
    ),
    # Shares
    ({"life.ends.commit": 0.6}, "life.ends.shares must sum to 1, not 0.9: commit 0.6, fail 0.1"),
    ({"life.ends.commit": 1.2}, "life.ends.commit must be at most 1"),
    ({"life.ends.die": -0.1}, "life.ends.die must be at least 0"),
    ({"catalogue.hot_share": 1.5}, "catalogue.hot_share must be at most 1"),
    # Sessions and how they are carried
    ({"sessions_max": 0}, "sessions_max must be at least 1, not 0"),
    ({"sessions_max": 100_001}, "sessions_max must be at most 100,000, not 100001"),
    ({"sessions_max": 1.5}, "sessions_max must be a whole number, not 1.5"),
    ({"transport": "pigeon"}, "transport must be one of coalesced, unary, pipeline, not 'pigeon'"),
    ({"processes": 3}, "connections must be at least one of 3 processes"),
    ({"seed": -1}, "seed must be at least 0"),
    # What an agent does
    ({"life.lines": [3]}, r"life.lines must be \[least, most\], not \[3\]"),
    ({"life.lines": [3, 1]}, r"life.lines must be \[least, most\], not \[3, 1\]"),
    ({"life.lines": [0, 1]}, "life.lines must be at least 1, not 0"),
    ({"life.lines": 3}, "life.lines must be a list, not 3"),
    ({"life.lines": [1, 21]}, "life.lines must be at most the 20 SKUs, not 21"),
    ({"life.ttl_s": 0}, "life.ttl_s must be at least 0.1"),
    ({"life.think.low_s": 2}, "life.think.low_s must be at most high_s, 0.2"),
    ({"life.browse": "ask"}, "life.browse must be one of get_stock, watch, none"),
    ({"catalogue.skus": 0}, "catalogue.skus must be at least 1"),
    ({"catalogue.zipf_s": 0}, "catalogue.zipf_s must be above 0"),
    # Time and faults
    ({"phases.steady_s": 0}, "phases.steady_s must be above 0"),
    ({"fault.at_s": 4}, "fault.at_s must be below steady_s, 4"),
    ({"fault.target": "moon"}, "fault.target must be one of store, server"),
    # Thresholds
    (
        {"thresholds": ["p99 < 5ms", "p98 < 5ms"]},
        r"thresholds\[1\] is not a threshold: 'p98 < 5ms'",
    ),
    ({"thresholds": [5]}, "thresholds must be text, not 5"),
    ({"saturate.objective": "p99"}, "saturate.objective is not a threshold: 'p99', character 4"),
    ({"saturate.step": 0}, "saturate.step must be above 0"),
]


@pytest.mark.parametrize(("overrides", "problem"), WRONG)
def test_wrong_scenario_is_refused_by_key_and_limit(
    overrides: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ScenarioError, match=problem) as refused:
        load("smoke", overrides)

    assert str(refused.value).startswith(refused.value.key)


@pytest.mark.parametrize("name", ["flash-mob", "", "FLASH-SALE"])
def test_unknown_name_is_told_the_shipped_ones(name: str) -> None:
    with pytest.raises(ScenarioError, match="is not a scenario; shipped: cart, catalogue"):
        load(name)


def test_file_that_is_not_there_or_not_toml_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"nowhere\.toml cannot be read"):
        load(str(tmp_path / "nowhere.toml"))

    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"rate = \xff")
    with pytest.raises(ScenarioError, match=r"broken\.toml cannot be read"):
        load(str(broken))


def test_limits_bind_what_is_made_in_python_too() -> None:
    for make in (
        lambda: Ends(commit=0.5),
        lambda: Arrivals(rate=0.0),
        lambda: Think(kind="maybe"),
        lambda: Saturate(rate_max=0.0),
        lambda: Scenario(sessions_max=0),
    ):
        with pytest.raises(ScenarioError):
            make()
