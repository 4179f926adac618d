"""The comparison's arithmetic: turns, medians, what counts as oversold, and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hdrh.histogram import HdrHistogram

from holdfast_bench.peers.command import peers_command, table
from holdfast_bench.peers.driving import DIGITS, US_MAX, Driven, Load
from holdfast_bench.peers.processes import Cpu, Stock
from holdfast_bench.peers.run import Plan, Result, Turn, oversold, run
from holdfast_bench.peers.serving import counted
from holdfast_bench.peers.terms import Sale

PNG = b"\x89PNG"


def driven(operations: int, *us: int, sold: dict[str, int] | None = None) -> Driven:
    histogram = HdrHistogram(1, US_MAX, DIGITS)
    for value in us:
        histogram.record_value(value)
    outcomes = {"ok": operations - 1, "sold_out": 1}
    return Driven(2.0, operations, 2 * operations, outcomes, histogram, sold or {})


def turn(operations: int, *us: int, units: int | None = 0) -> Turn:
    return Turn(driven(operations, *us), Cpu(operations / 100, operations / 1000), units, None)


def test_a_result_is_the_median_of_its_turns_and_the_sum_of_its_errors() -> None:
    result = Result("any", (turn(100, 1_000), turn(300, 3_000), turn(200, 2_000, units=4)))

    assert result.as_json()["operations_per_s"] == 100.0
    assert result.latency_ms(50) == pytest.approx(2.0, rel=1e-2)
    assert result.cpu_ms() == pytest.approx((5.0, 0.5))
    assert (result.oversold, result.errors) == (4, 0)


def test_what_decides_nothing_has_oversold_nothing_and_is_not_said_to_be_sound() -> None:
    result = Result("echo", (turn(100, 1_000, units=None),))

    assert result.oversold is None
    cells = [list(column.cells) for column in table([result], "uniform", Plan(1)).columns]
    assert cells[5] == ["-"]


def test_oversold_is_counted_for_each_item_by_itself() -> None:
    stock = {"a": 2, "b": 5}
    sales = {"a": Sale(sold=2, held=1), "b": Sale(sold=1, held=0), "c": Sale(sold=1, held=0)}

    found = counted(stock, sales)

    assert found
    assert (found["on_sale"], found["sold"], found["held"], found["oversold"]) == (7, 4, 1, 2)


def test_callers_who_were_told_too_much_are_counted_too() -> None:
    stock = Stock(skus=2, units=5, items={"last": 1})

    assert oversold({"last": 3, "SKU-000000": 5, "SKU-000001": 6}, stock) == 3


def test_any_driver_measures_a_contestant_and_the_files_say_what_it_found(tmp_path: Path) -> None:
    asked: list[tuple[str, str, float]] = []

    def drive(target: str, load: Load, seconds: float) -> Driven:
        asked.append((target, load.name, seconds))
        return driven(100, 1_000, 2_000)

    run(Load(skus=3), ["echo"], tmp_path, plan=Plan(rounds=1, seconds=0.5, drive=drive))

    assert [(name, seconds) for _target, name, seconds in asked] == [("uniform", 0.5)]
    report = json.loads((tmp_path / "peers.json").read_text())
    (echo,) = report["contestants"]
    assert (echo["name"], echo["operations_per_s"], echo["oversold"]) == ("echo", 50.0, None)
    assert len(echo["turns"]) == 1
    assert (tmp_path / "charts" / "peers.png").read_bytes().startswith(PNG)


def test_the_command_measures_by_itself(tmp_path: Path) -> None:
    words = ["--only", "evalsha", "--rounds", "1", "--seconds", "0.2", "--out", str(tmp_path)]

    ended = CliRunner().invoke(peers_command, [*words, "--load", "flash-sale", "--json"])

    assert ended.exit_code == 0, ended.output
    (found,) = json.loads(ended.stdout)
    assert found["operations_per_s"] > 0
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert (found["oversold"], found["errors"]) == (0, 0)
    assert found["cpu_s_per_1000"]["server"] > 0
    assert found["turns"][0]["units"]["sold"] > 0
