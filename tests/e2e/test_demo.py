"""The demo, shortened: agents race, everything is checked, and the exit status follows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from holdfast_server.catalogue import CatalogueItem
from holdfast_server.checks import Verdict
from holdfast_server.cli import demonstrating
from holdfast_server.demo import Race, Result
from holdfast_server.demo.shop import HOT_SKU, Shop
from holdfast_server.demo.tally import Tally, at

COMMAND = (sys.executable, "-m", "holdfast_server.cli", "demo")
CHECKS = {
    "never_oversold",
    "exactly_one_end",
    "ledger_gapless",
    "replay_equals_state",
    "acknowledged_found",
    "books_balance",
}


def demo(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, cwd=folder, timeout=100, check=False
    )


def test_a_short_race_keeps_every_promise_and_heeding_the_advice_saves_refusals(
    tmp_path: Path,
) -> None:
    done = demo(tmp_path, "--seconds", "2", "--agents", "80", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["holds"]
    off, on = (report["races"][pacing] for pacing in ("off", "on"))
    for race in (off, on):
        assert {check["name"] for check in race["checks"]} >= CHECKS
        assert all(check["looked_at"] for check in race["checks"])
        assert race["counts"]["units_sold"] > 0
        assert "errors" not in race["counts"]
    assert off["counts"]["sessions"] == on["counts"]["sessions"]
    assert on["counts"]["waited"] > 0
    assert on["counts"]["redirected"] > 0
    assert {"waited", "redirected"}.isdisjoint(off["counts"])
    assert on["refusals_per_100_orders"] < off["refusals_per_100_orders"]


def test_a_race_prints_lines_where_there_is_no_terminal_and_leaves_nothing(tmp_path: Path) -> None:
    done = demo(tmp_path, "--seconds", "0.5", "--agents", "10", "--seed", "7")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("imported 210 items, 32563 units, from 630 rows") == 2
    assert "10 agents that ignore the advice shop for 0.5 s" in done.stdout
    assert "10 agents that heed the advice serve the same " in done.stdout
    assert "refusals per 100 orders with pacing" in done.stdout
    assert done.stdout.endswith("nothing was oversold\n")
    assert "\x1b" not in done.stdout
    assert not list(tmp_path.iterdir())


def test_one_race_alone_has_nothing_to_compare(tmp_path: Path) -> None:
    done = demo(tmp_path, "--seconds", "0.5", "--agents", "10", "--pacing", "on")
    assert done.returncode == 0, done.stderr
    assert "10 agents that heed the advice shop for 0.5 s" in done.stdout
    assert "pacing off" not in done.stdout
    assert "with pacing" not in done.stdout


def broken(pacing: str, *, refusals: int = 0) -> Result:
    verdict = Verdict("never_oversold", False, 1, ["#3 oversold"])
    return Result(pacing, Tally(Counter(refusals=refusals, orders=10)), 1.0, [verdict])


def test_the_exit_status_follows_the_verdict_and_what_is_bad_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(_race: Race, _screen: object) -> list[Result]:
        return [broken("off", refusals=1), broken("on", refusals=2)]

    monkeypatch.setattr(demonstrating, "run", run)
    with pytest.raises(SystemExit) as ended:
        demonstrating.demo_command([])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "pacing on: never_oversold: #3 oversold" in said
    assert "PACING DID NOT HELP: 20.0 refusals per 100 orders with pacing, 10.0 without" in said
    assert said.endswith("A PROMISE WAS BROKEN\n")


def test_customers_are_the_same_in_every_race_and_most_want_the_hot_item() -> None:
    items = [CatalogueItem(2, "MUG", stock={"Main": 90}), CatalogueItem(3, HOT_SKU)]
    baskets = [Shop(items, seed=5).customer(number).basket for number in range(200)]
    assert baskets == [Shop(items, seed=5).customer(number).basket for number in range(200)]
    wanted = [line.sku for basket in baskets for line in basket]
    assert wanted.count(HOT_SKU) > wanted.count("MUG") > 0


@pytest.mark.parametrize(
    ("values", "share", "value"),
    [([], 0.5, 0.0), ([3.0], 0.99, 3.0), ([1.0, 2.0, 3.0], 0.5, 2.0), ([1.0, 2.0], 1.0, 2.0)],
)
def test_a_percentile_is_one_of_the_values(values: list[float], share: float, value: float) -> None:
    assert at(values, share) == value
