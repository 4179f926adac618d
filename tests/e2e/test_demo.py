"""The demo, shortened: agents race, everything is checked, and the exit status follows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from holdfast_server.catalogue import CatalogueItem
from holdfast_server.checks import Verdict
from holdfast_server.cli import demonstrating
from holdfast_server.demo import Race, Result
from holdfast_server.demo.agents import HOT_SKU, Shop
from holdfast_server.demo.tally import Tally, at

COMMAND = (sys.executable, "-m", "holdfast_server.cli", "demo")


def demo(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, cwd=folder, timeout=100, check=False
    )


def test_a_short_race_keeps_every_promise(tmp_path: Path) -> None:
    done = demo(tmp_path, "--seconds", "3", "--agents", "80", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["holds"]
    assert {check["name"] for check in report["checks"]} == {
        "never_oversold",
        "exactly_one_end",
        "ledger_gapless",
        "replay_equals_state",
        "watch_gapless",
        "acknowledged_found",
        "books_balance",
    }
    assert all(check["looked_at"] for check in report["checks"])
    counts = report["counts"]
    assert counts["units_sold"] > 0
    assert counts["sold_out"] > 0
    assert "errors" not in counts


def test_a_race_prints_lines_where_there_is_no_terminal_and_leaves_nothing(tmp_path: Path) -> None:
    done = demo(tmp_path, "--seconds", "0.5", "--agents", "10", "--seed", "7")
    assert done.returncode == 0, done.stderr
    assert "imported 210 items, 32563 units, from 630 rows" in done.stdout
    assert "10 agents shop for 0.5 s" in done.stdout
    assert done.stdout.endswith("nothing was oversold\n")
    assert "\x1b" not in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_exit_status_follows_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(race: Race, _screen: object) -> Result:
        return Result(
            race, Tally(), 1.0, [], [Verdict("never_oversold", False, 1, ["#3 oversold"])]
        )

    monkeypatch.setattr(demonstrating, "run", broken)
    with pytest.raises(SystemExit) as ended:
        demonstrating.demo_command(["--json"])
    assert ended.value.code == 1


def test_most_agents_want_the_hot_item() -> None:
    items = [CatalogueItem(2, "MUG", stock={"Main": 90}), CatalogueItem(3, HOT_SKU)]
    shop, rng = Shop.of(items, Tally()), Random(1)
    wanted = [line.sku for _ in range(200) for line in shop.basket(rng)]
    assert wanted.count(HOT_SKU) > wanted.count("MUG") > 0


@pytest.mark.parametrize(
    ("values", "share", "value"),
    [([], 0.5, 0.0), ([3.0], 0.99, 3.0), ([1.0, 2.0, 3.0], 0.5, 2.0), ([1.0, 2.0], 1.0, 2.0)],
)
def test_a_percentile_is_one_of_the_values(values: list[float], share: float, value: float) -> None:
    assert at(values, share) == value
