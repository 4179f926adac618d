"""`holdfast bench`: small runs against real servers, bad targets, and every exit status."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fake_stock import Behaviour, fake_stock

COMMAND = (sys.executable, "-m", "holdfast_server.cli", "bench")
SMALL = ("--duration", "2", "--set", "phases.warm_up_s=0.5", "--set", "phases.drain_s=4")
END_S_MAX = 60.0


def bench(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=END_S_MAX,
        check=False,
    )


@asynccontextmanager
async def running(*words: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *map(str, words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until_said(process: asyncio.subprocess.Process, words: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(END_S_MAX):
        async for line in process.stdout:
            if words in line.decode():
                return
    raise AssertionError(f"it never said {words!r}")


def result_in(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    ("scenario", "transport", "processes"), [("smoke", "coalesced", 1), ("cart", "unary", 2)]
)
def test_a_small_run_keeps_every_promise(
    scenario: str, transport: str, processes: int, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    how = ("--transport", transport, "--processes", str(processes), "--connections", "4")
    changes = {
        "arrivals.kind": "constant",
        "life.think.mean_s": 0.1,
        "life.pay.mean_s": 0.1,
        # Those of a scenario are for a machine of its own.
        "thresholds": "oversold == 0, violations == 0, error_rate < 1%",
    }
    given = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    done = bench(
        *("run", scenario, "--embedded", "--out", out, "--rate", "60", *how, *SMALL, *given),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = result_in(out)
    assert result["end_reason"] == "completed"
    assert {verdict["name"] for verdict in result["verdicts"]} == {
        "never_oversold",
        "exactly_one_end",
        "ledger_gapless",
        "replay_equals_state",
        "acknowledged_found",
        "agents_not_oversold",
        "books_balance",
        "watch_gapless",
    }
    assert all(verdict["holds"] and verdict["looked_at"] for verdict in result["verdicts"])
    assert result["sessions"]["finished"] == result["sessions"]["planned"] == 150
    assert {row["process"] for row in result["resources"]} == {"generator", "server", "store"}
    assert result["stock"]
    files = {"env.json", "seconds.csv", "Reserve.hgrm", "Reserve.service.hgrm"}
    assert files <= set(os.listdir(out))
    store = json.loads((out / "env.json").read_text(encoding="utf-8"))["server"]["store"]
    assert (store["kind"], store["config"]["appendfsync"]) == ("valkey", "everysec")
    assert "never_oversold" in done.stdout


def test_a_threshold_that_does_not_hold_is_99(tmp_path: Path) -> None:
    done = bench(
        *("run", "smoke", "--json", "--out", tmp_path / "out", "--duration", "0.5"),
        *("--set", "thresholds=p50 < 1ns", "--set", "phases.warm_up_s=0"),
        folder=tmp_path,
    )
    assert done.returncode == 99, done.stderr
    result = json.loads(done.stdout)
    assert [threshold["holds"] for threshold in result["thresholds"]] == [False]
    assert result["exit_code"] == 99


async def test_a_server_that_oversells_is_99(tmp_path: Path) -> None:
    async with (
        fake_stock(Behaviour(oversells=True)) as fake,
        running(
            *(
                "run",
                "smoke",
                "--target",
                fake.target,
                "--out",
                tmp_path / "out",
                "--duration",
                "1",
            ),
            *("--set", "catalogue.units=1", "--set", "catalogue.skus=2"),
        ) as process,
    ):
        said, _ = await process.communicate()
    assert process.returncode == 99
    assert b"BROKEN: agents_not_oversold" in said


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("nonsense",), "nonsense is not a scenario; shipped: cart, "),
        (("missing.toml",), "cannot be read"),
        (("smoke", "--rate", "0"), "arrivals.rate must be above 0"),
        (("smoke", "--set", "life.tll_s=3"), "life.tll_s is not a key"),
        (("smoke", "--set", "seed"), "--set takes KEY=VALUE"),
        (("smoke", "--transport", "carrier-pigeon"), "transport must be one of"),
        (("smoke", "--target", "nowhere"), "must be HOST:PORT"),
        (("smoke", "--target", "localhost:1", "--embedded"), "exclude each other"),
        (("failover", "--target", "localhost:1"), "fault can only strike an embedded server"),
    ],
)
def test_wrong_usage_is_2(words: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    done = bench("run", *words, folder=tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert not list(tmp_path.iterdir())


async def test_a_target_that_is_none_is_1(tmp_path: Path) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    words = ("run", "smoke", "--target", target, "--out", tmp_path / "out")
    async with server, running(*words) as process:
        _, complaint = await process.communicate()
    assert (process.returncode, b"speaks HTTP/1" in complaint) == (1, True)
    async with running(*words) as process:
        _, complaint = await process.communicate()
    assert (process.returncode, b"cannot connect" in complaint) == (1, True)


def test_too_few_descriptors_is_1(tmp_path: Path) -> None:
    command = " ".join(COMMAND)
    done = subprocess.run(
        ["sh", "-c", f"ulimit -n 512 && exec {command} run smoke --connections 5000"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=END_S_MAX,
        check=False,
    )
    assert done.returncode == 1
    assert "needs 5256 for 5000 connections, and the hard limit (ulimit -Hn) is 512" in done.stderr


async def test_ctrl_c_ends_a_run_early_and_reports_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with running("run", "smoke", "--out", out, "--duration", "600") as process:
        await until_said(process, "phase steady")
        process.send_signal(signal.SIGINT)
        said, _ = await process.communicate()
    result = result_in(out)
    assert process.returncode == result["exit_code"] == 1
    assert result["end_reason"] == "interrupted"
    assert result["count"] > 0
    assert all(verdict["holds"] for verdict in result["verdicts"])
    assert b"ENDED EARLY: interrupted" in said


async def test_a_target_that_dies_leaves_what_was_measured(tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with (
        fake_stock(Behaviour()) as fake,
        running(
            "run", "smoke", "--target", fake.target, "--out", out, "--duration", "600"
        ) as process,
    ):
        await until_said(process, "phase steady")
        fake.process.kill()
        await process.communicate()
    result = result_in(out)
    assert process.returncode == result["exit_code"] == 1
    assert result["end_reason"] == "the target went away"
    assert result["rpcs"]["Reserve"]["outcomes"]["ok"] > 0
    assert result["verdicts"] == []


def test_the_shipped_scenarios_are_listed(tmp_path: Path) -> None:
    done = bench("scenarios", "--json", folder=tmp_path)
    names = [scenario["name"] for scenario in json.loads(done.stdout)]
    assert {"flash-sale", "catalogue", "smoke", "saturate", "failover"} <= set(names)
