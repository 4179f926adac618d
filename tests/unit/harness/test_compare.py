"""Comparing versions: verdicts, what stands in their way, what is printed, and the exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_bench.harness.compare import Comparison, Difference, Verdict, compare, judge, runs_in
from holdfast_bench.harness.compare_command import compare_command
from holdfast_bench.harness.report import UnreadableRun
from holdfast_bench.harness.yardsticks import YARDSTICKS
from tests.made_up_runs import Load, make_run

P99 = next(one for one in YARDSTICKS if one.name == "p99")
RATE = next(one for one in YARDSTICKS if one.name == "rate")
Change = Callable[[dict[str, Any]], object]
NOISE = st.lists(st.floats(0.97, 1.03), min_size=8, max_size=8)


def side(
    folder: Path, runs: int = 4, *, median_ms: float = 3.0, change: Change | None = None
) -> Path:
    for seed in range(runs):
        load = Load(seed + len(folder.name), rate=15, steady_s=8, median_ms=median_ms)
        make_run(folder / f"{seed}", replace(load, is_fine=False), change)
    return folder


def compared(a: Path, b: Path, fail_over: float | None = None, rpc: str = "") -> Comparison:
    return compare(runs_in(a), runs_in(b), fail_over, rpc=rpc)


def named(comparison: Comparison, name: str) -> Difference:
    return next(one for one in comparison.differences if one.yardstick.name == name)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return side(tmp_path_factory.mktemp("runs") / "before")


@pytest.fixture(scope="module")
def slower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return side(tmp_path_factory.mktemp("runs") / "slower", median_ms=5.0)


@given(st.lists(st.floats(0.1, 1e4), min_size=4, max_size=12))
@settings(max_examples=15, deadline=None)
def test_the_same_figures_are_no_significant_change(values: list[float]) -> None:
    assert judge(P99, values, values, seed=1).verdict is Verdict.NO_CHANGE


@given(NOISE, NOISE, st.floats(0.5, 500))
@settings(max_examples=15, deadline=None)
def test_a_shift_of_20_percent_in_8_runs_is_seen(
    a: list[float], b: list[float], scale: float
) -> None:
    low, high = [one * scale for one in a], [one * scale * 1.2 for one in b]
    assert judge(P99, low, high, seed=1).verdict is Verdict.WORSE
    assert judge(P99, high, low, seed=1).verdict is Verdict.BETTER
    assert judge(RATE, low, high, seed=1).verdict is Verdict.BETTER
    assert judge(RATE, high, low, seed=1).verdict is Verdict.WORSE


def test_noise_is_seldom_called_a_change() -> None:
    called = 0
    for seed in range(40):
        dice = Random(seed)
        a, b = ([dice.lognormvariate(0, 0.3) for _ in range(6)] for _ in range(2))
        called += judge(P99, a, b, seed=1).verdict is not Verdict.NO_CHANGE
    assert called <= 4


def test_three_runs_a_side_are_too_few() -> None:
    found = judge(P99, [1.0, 1.0, 1.0], [9.0, 9.0, 9.0], seed=1)
    assert found.verdict is Verdict.TOO_FEW
    assert not found.is_worse_by(0.0)


def test_a_figure_that_was_nothing_before_is_worse_by_any_share() -> None:
    errors = next(one for one in YARDSTICKS if one.name == "errors")
    found = judge(errors, [0.0] * 4, [0.5, 0.4, 0.6, 0.5], seed=1)
    assert found.is_worse_by(10.0)


def test_slower_runs_are_worse_in_their_latencies_alone(before: Path, slower: Path) -> None:
    comparison = compared(before, slower, 0.1)
    verdicts = {one.yardstick.name: one.verdict for one in comparison.differences}
    assert {verdicts[name] for name in ("p50", "p90", "p99")} == {Verdict.WORSE}
    assert verdicts["rate"] is Verdict.NO_CHANGE
    assert named(comparison, "p50").change == pytest.approx(2 / 3, abs=0.15)
    assert comparison.exit_code == 99
    assert compared(slower, before, 0.1).exit_code == 0
    assert compared(before, slower, 2.0).exit_code == 0
    assert compared(before, slower).exit_code == 0


def test_one_rpc_can_be_compared_by_itself(before: Path, slower: Path) -> None:
    comparison = compared(before, slower, rpc="Reserve")
    assert named(comparison, "p50").verdict is Verdict.WORSE
    assert named(comparison, "p50").a != named(compared(before, slower), "p50").a
    assert not named(compared(before, slower, rpc="NoSuch"), "p50").a


def test_server_cpu_is_that_of_the_measured_phase(before: Path) -> None:
    values = named(compared(before, before), "server CPU").a
    # 90 % of a core over 60 calls a second
    assert values[0] == pytest.approx(0.9 / 60 * 1e6, rel=0.1)


def test_runs_that_say_nothing_of_the_server_are_left_out(before: Path, tmp_path: Path) -> None:
    def slow_generator(result: dict[str, Any]) -> None:
        result["generator"] |= {"is_valid": False, "reasons": ["calls left late"]}

    after = side(tmp_path / "after")
    make_run(after / "late", Load(rate=5, steady_s=2, is_fine=False), slow_generator)
    make_run(
        after / "cut",
        Load(rate=5, steady_s=2, is_fine=False),
        lambda r: r.update(end_reason="interrupted"),
    )
    comparison = compared(before, after)
    assert len(comparison.b) == 4
    assert [note.partition("after/")[2].partition(";")[0] for note in comparison.left_out] == [
        "cut: INCOMPLETE: interrupted",
        "late: INVALID: calls left late",
    ]
    assert comparison.exit_code == 0


def test_a_broken_promise_fails_without_any_limit(before: Path, tmp_path: Path) -> None:
    after = side(tmp_path / "after", change=lambda r: r["verdicts"][0].update(holds=False))
    comparison = compared(before, after)
    assert comparison.exit_code == 99
    assert len(comparison.broken) == 4
    assert not comparison.b


def test_other_options_or_machines_are_told(before: Path, tmp_path: Path) -> None:
    assert not compared(before, before).warnings
    after = side(tmp_path / "after", change=lambda r: r["options"].update(connections=1))
    (warning,) = compared(before, after).warnings
    assert warning.endswith("options: connections")


def test_a_side_without_runs_is_an_error(before: Path, tmp_path: Path) -> None:
    with pytest.raises(UnreadableRun, match="side B has no run"):
        compared(before, tmp_path)


def test_command_prints_verdicts_and_exits_99(before: Path, slower: Path, tmp_path: Path) -> None:
    out = tmp_path / "overlay.html"
    words = [str(before), str(slower), "--fail-over", "10%", "--out", str(out)]
    done = CliRunner().invoke(compare_command, words)
    assert done.exit_code == 99, done.output
    (p50,) = (line for line in done.output.splitlines() if line.startswith("p50"))
    assert p50.rstrip().endswith("worse")
    assert "worse by more than 10.0 %: p50, p90, p99" in done.output
    page = out.read_text()
    assert "A before 1" in page
    assert "B slower 4" in page


def test_command_prints_json(before: Path, slower: Path) -> None:
    words = [str(before), str(slower), "--json", "--fail-over", "0.1"]
    done = CliRunner().invoke(compare_command, words)
    found = json.loads(done.output)
    figures = {one["name"]: one for one in found["figures"]}
    assert figures["p99"]["verdict"] == "worse"
    assert len(figures["p99"]["b"]["values"]) == 4
    assert found["exit_code"] == done.exit_code == 99


def test_command_says_why_there_are_too_few_runs(before: Path) -> None:
    done = CliRunner().invoke(compare_command, [str(before / "0"), str(before)])
    assert done.exit_code == 0
    assert "too few runs" in done.output
    assert "fewer than 4 usable runs a side" in done.output


@pytest.mark.parametrize("limit", ["ten", "-1%", "10 apples"])
def test_command_refuses_what_is_no_share(before: Path, limit: str) -> None:
    done = CliRunner().invoke(compare_command, [str(before), str(before), f"--fail-over={limit}"])
    assert done.exit_code == 2


def test_command_names_a_directory_without_runs(before: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(compare_command, [str(before), str(tmp_path)])
    assert done.exit_code == 1
    assert "side B has no run" in done.output
