"""`holdfast watch`, as a process, against a server that does what the test says."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import signal
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from holdfast import AsyncClient, LagCause, Lagging, ServerLoad, StockChanges
from holdfast.levels import KnownLevels
from holdfast.responses import level_of
from holdfast_server import errors
from holdfast_server.cli.watching import TableScreen
from tests.unit.watched import (
    Script,
    Stream,
    changes,
    cutting,
    failing,
    giving,
    heartbeat,
    level,
    serving,
    snapshot,
)

COMMAND = (sys.executable, "-m", "holdfast_server.cli", "watch")
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")
}
LOW = {"pressure": 3, "advice": 2}
SNAPSHOT = snapshot(5, level("A", 3, 4, held=2, **LOW), level("B", 9, 5), missing_skus=["C"])
CHANGE = changes(5, 6, level("A", 2, 6, **LOW), conflated_count=1)


async def started(target: str, *words: str, **pipes: Any) -> asyncio.subprocess.Process:
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, **pipes}
    environment = {**ENVIRONMENT, "HOLDFAST_TARGET": target}
    return await asyncio.create_subprocess_exec(*COMMAND, *words, env=environment, **pipes)


async def run(script: Script | None, *words: str) -> tuple[int | None, str, str]:
    """Run a command to its end; without a script there is no server."""
    async with serving(script or Script(giving())) as target:
        process = await started(target if script else "127.0.0.1:1", *words)
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


async def test_json_has_a_line_for_each_level_and_where_to_go_on() -> None:
    script = Script(giving(SNAPSHOT, CHANGE))
    status, out, err = await run(script, "A", "B", "C", "--json", "--limit", "2")
    a, b, through, changed, last = map(json.loads, out.splitlines())
    assert (status, err) == (0, "")
    assert [(one["kind"], one["sku"], one["available"]) for one in (a, b, changed)] == [
        ("level", "A", 3),
        ("level", "B", 9),
        ("level", "A", 2),
    ]
    assert (a["pressure"], a["advice"], a["held"]) == ("LOW", "SLOW_DOWN", 2)
    assert through == {
        "kind": "through",
        "through_sequence": 5,
        "is_snapshot": True,
        "conflated_count": 0,
        "missing_skus": ["C"],
        "load": "NORMAL",
        "resume_token": "t5",
    }
    assert (last["resume_token"], last["conflated_count"]) == ("t6", 1)
    assert [list(request.skus) for request in script.requests] == [["A", "B", "C"]]


async def test_json_has_a_line_for_each_marker() -> None:
    script = Script(cutting(SNAPSHOT), cutting(heartbeat(5)), giving(snapshot(9, level("A", 1, 8))))
    _status, out, _err = await run(script, "--all", "--json", "--limit", "2")
    marks = [json.loads(line) for line in out.splitlines()]
    marks = [mark for mark in marks if mark["kind"] not in ("level", "through")]
    assert [mark["kind"] for mark in marks] == ["lagging", "resumed", "lagging", "resynced"]
    assert set(marks[0]) == {"kind", "cause", "attempt", "since", "message"}
    assert marks[1] == {"kind": "resumed", "through_sequence": 5}
    assert marks[3] == {
        "kind": "resynced",
        "reason": "GAP",
        "through_sequence": 9,
        "missing_skus": [],
    }


async def test_elsewhere_than_on_a_terminal_there_are_lines() -> None:
    script = Script(cutting(SNAPSHOT), giving(CHANGE))
    status, out, _err = await run(script, "--all", "--limit", "2")
    lines = [line[21:] for line in out.splitlines()]
    assert status == 0
    assert lines[0] == "A  available 3, held 2, committed 0  LOW SLOW_DOWN  revision 4"
    assert lines[2] == "-- not there yet: C"
    assert lines[3].startswith("-- cut off since ")
    assert "DISCONNECTED: connection lost" in lines[3]
    assert lines[4] == "-- resumed, nothing was missed through 6"
    assert lines[5].startswith("A  available 2, ")


async def test_the_options_reach_the_server() -> None:
    script = Script(giving(changes(5, 6, level("A", 1, 6))))
    options = ("--resume", "mine", "--min-interval", "500ms", "--on-gap", "fail", "--limit", "1")
    await run(script, "A", *options)
    (asked,) = script.requests
    assert (asked.resume_token, asked.on_gap) == ("mine", 2)
    assert asked.min_interval.ToMilliseconds() == 500


async def test_on_a_terminal_there_is_a_table() -> None:
    ours, theirs = pty.openpty()
    async with serving(Script(giving(SNAPSHOT, CHANGE))) as target:
        process = await started(target, "--all", "--limit", "2", stdout=theirs)
        os.close(theirs)
        _out, err = await process.communicate()
    shown = b""
    with os.fdopen(ours, "rb", closefd=True, buffering=0) as terminal:
        while chunk := _read(terminal):
            shown += chunk
    assert (process.returncode, err) == (0, b"")
    assert b"SLOW_DOWN" in shown
    assert b"through 6" in shown


async def test_the_table_keeps_to_the_height_of_the_terminal_whatever_it_says() -> None:
    console = Console(file=io.StringIO(), width=40, height=8)
    live = Live(console=console, auto_refresh=False)
    screen, watch = TableScreen(live, KnownLevels().view), AsyncClient().watch()
    levels = tuple(level_of(level(f"A-LONG-SKU-{number}", number, 1)) for number in range(20))
    screen.show(StockChanges(levels, 1, True, 0, ("B",) * 20, ServerLoad.NORMAL), watch)
    screen.show(Lagging(LagCause.DISCONNECTED, 1, datetime.now(UTC), "no route " * 20), watch)
    screen.refresh()
    shown = console.render_lines(live.get_renderable(), pad=False)
    assert len(shown) < 8
    assert "".join(part.text for part in shown[-1]).startswith("16 more items, cut off since ")


def _read(terminal: Any) -> bytes:
    try:
        return bytes(terminal.read(65536))
    except OSError:  # how a terminal says that its other side is closed
        return b""


@pytest.mark.parametrize("words", [(), ("A", "--all"), ("--all", "--json", "A")])
async def test_what_to_watch_must_be_said_once(words: tuple[str, ...]) -> None:
    status, out, err = await run(None, *words)
    assert (status, out) == (2, "")
    assert "name the SKUs to watch, or give --all instead" in err


@pytest.mark.parametrize(
    "words",
    [("--limit", "0"), ("--limit", "x"), ("--min-interval", "soon"), ("--on-gap", "perhaps")],
)
async def test_a_bad_option_is_wrong_usage(words: tuple[str, ...]) -> None:
    status, out, _err = await run(None, "--all", *words)
    assert (status, out) == (2, "")


@pytest.mark.parametrize("form", [(), ("--json",)])
async def test_an_error_is_one_line_and_status_1(form: tuple[str, ...]) -> None:
    error = errors.ResumeTokenExpired("the token is too old")
    script = Script(failing(error))
    status, out, err = await run(script, "A", "--resume", "old", "--on-gap", "fail", *form)
    assert (status, out) == (1, "")
    if form:
        found = json.loads(err)["error"]
        assert found == {"reason": "RESUME_TOKEN_EXPIRED", "message": "the token is too old"}
    else:
        assert err == "holdfast: RESUME_TOKEN_EXPIRED: the token is too old\n"


async def test_without_a_server_it_fails() -> None:
    status, out, err = await run(None, "--all")
    assert (status, out) == (1, "")
    assert err.startswith("holdfast: no server at 127.0.0.1:1")


@pytest.mark.parametrize("form", [(), ("--json",)])
async def test_an_interrupt_ends_it_without_a_word(form: tuple[str, ...]) -> None:
    async with serving(Script(giving(SNAPSHOT))) as target:
        process = await started(target, "--all", *form)
        assert process.stdout is not None
        assert await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


async def test_lines_come_at_once_and_a_reader_that_goes_away_ends_it_without_a_word() -> None:
    gone = asyncio.Event()

    async def behave(stream: Stream) -> None:
        await stream.give(SNAPSHOT)
        await gone.wait()
        for number in range(5, 5_000):
            await stream.give(changes(number, number + 1, level("A", 1, number + 1)))
        await stream.hang()

    reading, writing = os.pipe()
    async with serving(Script(behave)) as target:
        process = await started(target, "--all", "--json", stdout=writing)
        os.close(writing)
        assert (await asyncio.to_thread(os.read, reading, 65536)).startswith(b'{"kind": "level"')
        os.close(reading)
        gone.set()
        _out, err = await process.communicate()
    assert err == b""
