"""The benchmarks' arithmetic: medians, ratios, verdicts, and what the table and the file say."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path

import pytest

from holdfast_bench import __main__ as command
from holdfast_bench.measure import COLUMNS, Plan, Row, Series, exit_status, table, take_turns
from holdfast_bench.stores import StoreAddress
from holdfast_bench.traffic import operations
from holdfast_server.model import Commit, Reserve

FULL, SHORT = Plan(rounds=5), Plan(rounds=1)


def row(value: float, *, owed: float | None = 5) -> Row:
    return Row("fast", "Valkey 9", "op/s", Series((value,)), Series((100.0,)), "slow", owed)


def counter(name: str, calls: list[str]) -> Callable[[], Awaitable[float]]:
    async def measure() -> float:
        calls.append(name)
        return float(len(calls))

    return measure


def test_median_is_the_value_in_the_middle() -> None:
    assert Series((9.0, 1.0, 3.0)).median == 3.0
    assert Series((1.0, 3.0)).median == 2.0


def test_ratio_compares_values_of_one_round() -> None:
    # Rounds of a machine that gets ten times slower: each ratio is 2, that of the medians is not.
    value, against = Series((200.0, 20.0, 2.0)), Series((100.0, 10.0, 1.0))

    assert Row("a", "s", "op/s", value, against, "b").ratio == Series((2.0, 2.0, 2.0))


def test_rounds_are_not_compared_with_a_missing_one() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Series((1.0, 2.0)).over(Series((1.0,)))


async def test_contestants_take_turns_there_and_back() -> None:
    calls: list[str] = []

    found = await take_turns({"a": counter("a", calls), "b": counter("b", calls)}, Plan(rounds=2))

    assert calls == ["a", "b", "b", "a"] * 2
    # Each call is one slower than the last: a steady drift cancels out.
    assert found == {"a": Series((2.5, 6.5)), "b": Series((2.5, 6.5))}


@pytest.mark.parametrize(
    ("value", "owed", "verdict"),
    [(500, 5, True), (499, 5, False), (501, 5, True), (1, None, None)],
)
def test_verdict_is_whether_the_median_ratio_reaches_what_is_owed(
    value: float, owed: float | None, verdict: bool | None
) -> None:
    assert row(value, owed=owed).is_met is verdict


def test_failing_ratio_gives_exit_status_1() -> None:
    assert exit_status([row(500), row(499)], FULL) == 1
    assert exit_status([row(500), row(1, owed=None)], FULL) == 0


def test_too_few_rounds_are_shown_and_not_judged() -> None:
    assert exit_status([row(499)], SHORT) == 0
    assert "NO" not in table([row(499)], SHORT)


def test_table_lines_up_and_says_what_was_compared() -> None:
    lines = table([row(600), row(400), row(1, owed=None)], FULL).splitlines()

    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert tuple(cells[0]) == COLUMNS
    assert cells[2] == ["fast", "Valkey 9", "600 op/s", "slow: 100", "6.00", ">= 5", "yes"]
    assert cells[3][-1] == "NO"
    assert cells[4][-2:] == ["", ""]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((1234.5,), "1,234 us"),
        ((12.34,), "12.3 us"),
        ((0.456,), "0.46 us"),
        ((3.0, 1.0, 2.0), "2.00 us (1.00..3.00)"),
    ],
)
def test_value_shows_three_digits_and_the_extremes(values: tuple[float, ...], text: str) -> None:
    assert Series(values).text("us") == text


def test_json_holds_every_round_and_the_verdict() -> None:
    shape = json.loads(json.dumps(row(600).as_json()))

    assert shape == {
        "name": "fast",
        "store": "Valkey 9",
        "unit": "op/s",
        "values": [600],
        "against": {"name": "slow", "values": [100.0]},
        "ratio": 6.0,
        "owed": 5,
        "ok": True,
    }


@pytest.mark.parametrize(("value", "status"), [(600.0, 0), (400.0, 1)])
def test_command_writes_the_file_and_exits_with_the_verdict(
    value: float, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def benchmark(plan: Plan, address: StoreAddress) -> list[Row]:
        rounds = Series((value,) * plan.rounds)
        against = Series((100.0,) * plan.rounds)
        return [Row("fast", address.name, "op/s", rounds, against, "slow", 5)]

    monkeypatch.setattr(command, "BENCHMARKS", {"fake": benchmark})
    file = tmp_path / "bench.json"

    assert command.main(["--only", "fake", "--json", str(file)]) == status

    report = json.loads(file.read_text())
    assert report["rounds"] == 5
    assert report["is_judged"] is True
    assert {line["ok"] for line in report["rows"]} == {status == 0}
    assert report["rows"][0]["store"].startswith("Valkey ")


@pytest.mark.parametrize("url", ["unix:///nowhere/at.sock", "http://localhost"])
def test_store_that_cannot_be_used_is_told_and_exits_with_2(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--quick", "--redis-url", url]) == 2
    assert "cannot use the store" in capsys.readouterr().err


def test_file_in_no_directory_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["--json", "nowhere/bench.json"])


def test_commits_are_of_the_oldest_of_so_many_holds() -> None:
    sent = list(islice(operations(["A"], held_max=3), 9))

    assert [type(operation) for operation in sent] == [Reserve] * 3 + [Commit, Reserve] * 3
    ids = [operation.reservation_id for operation in sent if isinstance(operation, Reserve)]
    assert len(set(ids)) == len(ids)
    assert [op.reservation_id for op in sent if isinstance(op, Commit)] == ids[:3]
