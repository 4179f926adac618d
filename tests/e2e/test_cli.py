"""The command line as its users meet it: real processes, and servers that it started itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from holdfast import Client, Line
from holdfast_server.cli.client import LINE, SECONDS
from tests.serving import serving, unique

COMMAND = (sys.executable, "-m", "holdfast_server.cli")
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")
}


def holdfast(
    *words: str, target: str = "", given: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    variables = {**ENVIRONMENT, "HOLDFAST_TARGET": target} if target else ENVIRONMENT
    return subprocess.run(
        [*COMMAND, *words],
        input=given,
        capture_output=True,
        text=True,
        env={**variables, **environment},
        timeout=60,
        check=False,
    )


@contextmanager
def process(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command that goes on, until the block ends."""
    with subprocess.Popen(
        [*COMMAND, *words], stdout=-1, stderr=-1, text=True, env=ENVIRONMENT
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def logged(running: subprocess.Popen[str], event: str) -> Mapping[str, Any]:
    """Read the log of a server up to an event."""
    assert running.stderr is not None
    for line in running.stderr:
        entry: dict[str, Any] = json.loads(line)
        if entry["event"] == event:
            return entry
    raise AssertionError(f"the server ended with status {running.wait()}")


@contextmanager
def served(data: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `holdfast serve` until the block ends; yields the process and its target."""
    words = ("--listen", "127.0.0.1:0", "--data", str(data), "--durability", "memory", "--json")
    with process("serve", *words) as running:
        yield running, logged(running, "serving")["target"]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that the tests of this module share; each keeps to SKUs and ids of its own."""
    with served(tmp_path_factory.mktemp("cli") / "data") as (_running, address):
        yield address


@pytest.fixture
def sku(target: str, tmp_path: Path) -> str:
    """An item of which there are 5 units, imported from a file."""
    name = unique("sku-")
    loaded = load(target, tmp_path, f"sku,location,on_hand\n{name},Main,5\n")
    assert loaded.returncode == 0, loaded.stderr
    return name


def load(
    target: str, folder: Path, content: str | bytes, *options: str
) -> subprocess.CompletedProcess[str]:
    """Import a file of some content."""
    file = folder / "catalogue.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return holdfast("import", str(file), *options, target=target)


def available(target: str, sku: str) -> int | None:
    found = json.loads(holdfast("stock", sku, "--json", target=target).stdout)
    return found["levels"][0]["available"] if found["levels"] else None


# serve


def test_serve_ends_with_status_0_when_it_is_asked_to(tmp_path: Path) -> None:
    with served(tmp_path / "data") as (running, target):
        assert holdfast("check", target=target).returncode == 0
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=30) == 0


def test_serve_says_in_one_line_that_its_address_is_taken(target: str, tmp_path: Path) -> None:
    done = holdfast("serve", "--listen", target, "--data", str(tmp_path / "data"))
    assert done.returncode == 1
    assert done.stderr == f"holdfast: cannot listen on {target}: Address already in use\n"
    assert not (tmp_path / "data").exists()


def test_serve_says_in_one_line_that_its_directory_is_in_use(tmp_path: Path) -> None:
    with served(tmp_path / "data") as (running, _target):
        words = ("--listen", "127.0.0.1:0", "--data", str(tmp_path / "data"))
        done = holdfast("serve", *words)
        assert done.returncode == 1
        holder = f"in use by pid {running.pid}\n"
        assert done.stderr == f"holdfast: data directory {tmp_path / 'data'} is {holder}"


def test_serve_says_in_one_line_that_there_is_no_store(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/nothing.sock"
    done = holdfast("serve", "--listen", "127.0.0.1:0", "--redis-url", url)
    assert done.returncode == 1
    assert done.stderr.startswith("holdfast: cannot reach the store: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workers", "65"), "workers must be at most 64, not 65"),
        (("--listen", "7420"), "listen must be HOST:PORT or unix:PATH, not '7420'"),
        (
            ("--listen", "127.0.0.1:65536"),
            "listen must be HOST:PORT or unix:PATH, not '127.0.0.1:65536'",
        ),
    ],
)
def test_serve_refuses_a_bad_setting_as_wrong_usage(words: tuple[str, ...], message: str) -> None:
    done = holdfast("serve", *words)
    assert done.returncode == 2
    assert done.stderr == f"holdfast: bad setting: {message}\n"


# config and version


def test_config_shows_every_setting_and_masks_the_password() -> None:
    words = ("config", "--json", "--lanes", "7")
    done = holdfast(*words, HOLDFAST_REDIS_URL="redis://:s3cret@host", HOLDFAST_LANES="4")
    assert done.returncode == 0
    shown = json.loads(done.stdout)
    assert (shown["lanes"], shown["redis_url"]) == (7, "redis://:***@host")
    assert "s3cret" not in done.stdout + done.stderr


def test_config_prints_a_file_that_serve_can_read(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(holdfast("config", "--workers", "3", "--data", 'a "b" \\c').stdout)
    shown = json.loads(holdfast("config", "--config", str(file), "--json").stdout)
    assert (shown["workers"], shown["data"]) == (3, 'a "b" \\c')


def test_config_names_an_unknown_key_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text("lane = 3\n")
    done = holdfast("config", "--config", str(file))
    assert done.returncode == 2
    assert done.stderr == f"holdfast: bad setting: {file}: unknown setting 'lane'\n"


def test_version_names_what_holdfast_stands_on() -> None:
    found = json.loads(holdfast("version", "--json").stdout)
    assert {"holdfast", "grpcio", "redis", "python"} <= found.keys()


def test_without_the_server_extra_the_command_line_names_it() -> None:
    bare = "import sys; sys.modules['click'] = None; from holdfast_server.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", bare], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 1
    assert "click is not installed" in done.stderr
    assert "pip install 'holdfast[server]'" in done.stderr


# import


def test_an_import_loads_items_with_counts_and_policy(target: str, tmp_path: Path) -> None:
    mug, lamp = unique("mug-"), unique("lamp-")
    rows = f"{mug},Main,5,1,Mug\n{mug},Outlet,3,,\n{lamp},,7,,Lamp\n"
    done = load(target, tmp_path, "sku,location,on_hand,safety_stock,title\n" + rows)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 rows read, 2 items loaded" in done.stdout
    listed = holdfast("items", "--prefix", mug, "--json", target=target).stdout
    (entry,) = map(json.loads, listed.splitlines())
    assert entry["item"]["title"] == "Mug"
    assert (entry["level"]["on_hand"], entry["level"]["available"]) == (8, 7)
    assert available(target, lamp) == 7


def test_an_import_reports_bad_rows_by_line_and_loads_the_others(
    target: str, tmp_path: Path
) -> None:
    mug, lamp = unique("mug-"), unique("lamp-")
    rows = f"{mug},Main,five\n,Main,3\n{lamp},Main,7\n{lamp},Main,8\n"
    done = load(target, tmp_path, "sku,location,on_hand\n" + rows)
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in said] == ["line 2", "line 3", "line 5"]
    assert "on_hand must be a whole number from 0 to 1000000000, not 'five'" in said[0]
    assert available(target, lamp) == 7
    assert available(target, mug) is None


def test_a_strict_import_of_a_bad_file_loads_nothing(target: str, tmp_path: Path) -> None:
    lamp = unique("lamp-")
    done = load(target, tmp_path, f"sku,on_hand\n{lamp},7\nmug,-1\n", "--strict")
    assert done.returncode == 1
    assert "line 3: on_hand must be a whole number" in done.stderr
    assert done.stderr.endswith("nothing was loaded\n")
    assert available(target, lamp) is None


def test_an_import_reports_what_the_server_refuses_by_line(target: str, sku: str) -> None:
    with Client(target) as client:
        client.put_item(sku, system_of_record="warehouse")
    other = unique("sku-")
    given = "\n".join(json.dumps({"sku": name, "on_hand": 9}) for name in (other, sku))
    done = holdfast("import", "-", "--json", target=target, given=given)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["items"], report["failed_items"]) == (1, 1)
    assert [problem["line"] for problem in report["bad"]] == [2]
    assert (available(target, other), available(target, sku)) == (9, 5)


def test_an_import_repeated_with_its_request_id_changes_nothing(
    target: str, sku: str, tmp_path: Path
) -> None:
    content, request = f"sku,location,on_hand\n{sku},Main,50\n", unique()
    assert load(target, tmp_path, content, "--request-id", request).returncode == 0
    assert holdfast("reserve", f"{sku}=2", "--ttl", "1m", target=target).returncode == 0
    with Client(target) as client:
        client.adjust_stock(sku, 7, location="Main")
    assert load(target, tmp_path, content, "--request-id", request).returncode == 0
    assert available(target, sku) == 55


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sku,on_hand\nM\xdcG,5\n", "line 2: byte 0xdc is not UTF-8; save the file as UTF-8"),
        (b"name,count\n", "line 1: the header has no column 'sku'"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error(
    target: str, tmp_path: Path, content: bytes, message: str
) -> None:
    done = load(target, tmp_path, content)
    assert done.returncode == 1
    assert done.stderr == f"holdfast: {tmp_path / 'catalogue.csv'}: {message}\n"


# Reservations


def test_a_hold_goes_from_reserve_to_sale(target: str, sku: str) -> None:
    name = unique()
    words = ("reserve", f"{sku}=3@Main", "--id", name, "--ttl", "2m", "--agent", "a-7", "--json")
    reserved = json.loads(holdfast(*words, target=target).stdout)
    assert reserved["reservation"]["state"] == "HELD"
    assert reserved["reservation"]["context"]["agent_id"] == "a-7"
    assert reserved["levels"][0]["available"] == 2
    extended = holdfast("extend", name, "5m", target=target)
    assert extended.stdout.startswith(f"{name} HELD until ")
    part = holdfast("release", name, f"{sku}=1@Main", target=target)
    assert part.stdout.startswith(f"{name} HELD until ")
    sold = holdfast("commit", name, "--order-ref", "o-1", target=target)
    assert sold.stdout.startswith(f"{name} COMMITTED at ")
    again = holdfast("commit", name, "--order-ref", "o-1", target=target)
    assert "(replayed)" in again.stdout
    record = json.loads(holdfast("reservation", name, "--json", target=target).stdout)
    assert (record["state"], record["order_ref"]) == ("COMMITTED", "o-1")
    assert [(line["sku"], line["quantity"]) for line in record["lines"]] == [(sku, 2)]


def test_a_refusal_prints_what_was_available_and_exits_with_3(target: str, sku: str) -> None:
    done = holdfast("reserve", f"{sku}=6", target=target)
    assert done.returncode == 3
    assert done.stdout.startswith("refused: OUT_OF_STOCK: ")
    columns = done.stdout.splitlines()[2].split()
    assert columns[:4] == [sku, "anywhere", "6", "5"]


def test_a_refusal_is_a_document_with_json(target: str, sku: str) -> None:
    done = holdfast("reserve", f"{sku}=6", "--json", target=target)
    assert (done.returncode, done.stderr) == (3, "")
    refusal = json.loads(done.stdout)["refusal"]
    assert refusal["reason"] == "OUT_OF_STOCK"
    assert refusal["lines"][0]["available"] == 5
    assert refusal["levels"][0]["sku"] == sku


def test_what_another_principal_holds_is_not_committed(target: str, sku: str) -> None:
    name = unique()
    words = ("reserve", sku, "--id", name, "--ttl", "1m", "--principal", "alice")
    assert holdfast(*words, target=target).returncode == 0
    done = holdfast("commit", name, target=target, HOLDFAST_PRINCIPAL="bob")
    assert done.returncode == 1
    assert done.stderr.startswith("holdfast: NOT_OWNER: ")
    assert holdfast("commit", name, target=target, HOLDFAST_PRINCIPAL="alice").returncode == 0


def test_an_error_has_its_reason_in_the_line_and_in_the_document(target: str) -> None:
    done = holdfast("release", "nothing", target=target)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("holdfast: UNKNOWN_RESERVATION: ")
    told = holdfast("release", "nothing", "--json", target=target)
    assert (told.returncode, told.stdout) == (1, "")
    assert json.loads(told.stderr)["error"]["reason"] == "UNKNOWN_RESERVATION"


def test_stock_of_an_unknown_sku_is_an_error_after_the_known_ones(target: str, sku: str) -> None:
    done = holdfast("stock", sku, "nothing", target=target)
    assert done.returncode == 1
    assert sku in done.stdout
    assert done.stderr == "holdfast: UNKNOWN_SKU: no such SKU: nothing\n"


@pytest.mark.parametrize(
    "words", [("reserve",), ("reserve", "mug", "--ttl", "soon"), ("sell", "mug"), ("extend", "r")]
)
def test_wrong_usage_exits_with_2(words: tuple[str, ...]) -> None:
    done = holdfast(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: ")


def test_a_server_that_is_not_there_is_named() -> None:
    done = holdfast("items", target="127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("holdfast: no server at 127.0.0.1:1 ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("mug", Line("mug", 1)),
        ("mug=3", Line("mug", 3)),
        ("mug=3@East Hub", Line("mug", 3, "East Hub")),
        ("a=b=2@x", Line("a=b", 2, "x")),
        ("mug@home", Line("mug@home", 1)),
        ("mug=-1", Line("mug", -1)),
    ],
)
def test_a_line_is_a_sku_with_a_quantity_and_a_location(text: str, line: Line) -> None:
    assert LINE.convert(text, None, None) == line


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("500ms", 0.5)]
)
def test_an_interval_has_a_unit(text: str, seconds: float) -> None:
    assert SECONDS.convert(text, None, None) == seconds


# watch


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_watch_prints_levels_and_then_what_changes(target: str, sku: str) -> None:
    words = ("watch", sku, "--limit", "2", "--json", "--target", target)
    with process(*words) as watching:
        assert watching.stdout is not None
        level, through = (json.loads(watching.stdout.readline()) for _ in range(2))
        assert (level["kind"], level["sku"], level["available"]) == ("level", sku, 5)
        assert (through["kind"], through["is_snapshot"]) == ("through", True)
        assert holdfast("reserve", f"{sku}=2", target=target).returncode == 0
        level, through = documents(watching.stdout.read())
        assert (level["available"], level["held"], level["pressure"]) == (3, 2, "SCARCE")
        assert (through["is_snapshot"], through["through_sequence"]) == (False, level["revision"])
        assert watching.wait() == 0


def test_watch_goes_on_from_its_token(target: str, sku: str) -> None:
    words = ("watch", sku, "--limit", "1", "--json")
    _level, through = documents(holdfast(*words, target=target).stdout)
    assert holdfast("reserve", sku, target=target).returncode == 0
    resumed = holdfast(*words, "--resume", through["resume_token"], target=target)
    level, then = documents(resumed.stdout)
    assert (level["available"], then["is_snapshot"]) == (4, False)
    assert then["through_sequence"] >= level["revision"] > through["through_sequence"]


def test_watch_names_an_unknown_sku_and_follows_it_once_it_is_there(
    target: str, tmp_path: Path
) -> None:
    sku = unique("sku-")
    with process("watch", sku, "--target", target) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().endswith(f"-- not there yet: {sku}\n")
        assert load(target, tmp_path, f"sku,on_hand\n{sku},7\n").returncode == 0
        assert any(f"{sku}  available 7, held 0, " in line for line in watching.stdout)


def test_watch_all_has_every_item(target: str, sku: str) -> None:
    done = holdfast("watch", "--all", "--limit", "1", "--json", target=target)
    levels = [one["sku"] for one in documents(done.stdout) if one["kind"] == "level"]
    listed = documents(holdfast("items", "--json", target=target).stdout)
    assert sorted(levels) == sorted(entry["item"]["sku"] for entry in listed)
    assert sku in levels


def test_watch_ends_quietly_when_it_is_interrupted(target: str, sku: str) -> None:
    with process("watch", sku, "--target", target) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        said = watching.communicate(timeout=30)
        assert (watching.returncode, *said) == (0, "", "")


def test_watch_fails_without_a_server_and_with_a_token_that_is_none(target: str, sku: str) -> None:
    absent = holdfast("watch", "--all", target="127.0.0.1:1")
    assert absent.returncode == 1
    assert absent.stderr.startswith("holdfast: no server at 127.0.0.1:1 ")
    refused = holdfast("watch", sku, "--resume", "guessed", target=target)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("holdfast: INVALID_ARGUMENT: ")


# ledger and check


def test_the_ledger_lists_what_became_of_a_reservation(target: str, sku: str) -> None:
    name = unique()
    assert holdfast("reserve", sku, "--id", name, target=target).returncode == 0
    assert holdfast("release", name, target=target).returncode == 0
    listed = holdfast("ledger", "--reservation", name, "--json", target=target).stdout
    entries = [json.loads(line) for line in listed.splitlines()]
    assert [entry["kind"] for entry in entries] == ["RESERVE", "RELEASE"]
    newest = holdfast("ledger", "--from", str(entries[0]["sequence"]), target=target).stdout
    assert f"{sku} held +1" in newest.splitlines()[0]
    assert f"{sku} held -1" in newest.splitlines()[1]


def test_a_ledger_that_is_followed_prints_what_happens_meanwhile(target: str, sku: str) -> None:
    words = ("ledger", "--follow", "--sku", sku, "--json", "--target", target)
    with process(*words) as following:
        assert following.stdout is not None
        before = [json.loads(following.stdout.readline())["kind"] for _ in range(2)]
        assert before == ["PUT_ITEM", "SET_STOCK"]
        name = unique()
        assert holdfast("reserve", sku, "--id", name, target=target).returncode == 0
        entry = json.loads(following.stdout.readline())
        assert (entry["kind"], entry["id"]) == ("RESERVE", name)


def test_check_judges_a_live_server(target: str, sku: str) -> None:
    assert holdfast("reserve", f"{sku}=5", target=target).returncode == 0
    done = holdfast("check", "--json", target=target)
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["holds"]
    looked_at = {check["name"]: check["looked_at"] for check in report["checks"]}
    assert looked_at.keys() == {
        "never_oversold",
        "exactly_one_end",
        "ledger_gapless",
        "replay_equals_state",
        "watch_gapless",
    }
    assert all(looked_at.values())


async def test_check_finds_a_level_that_no_entry_explains(tmp_path: Path) -> None:
    async with serving(data=str(tmp_path), durability="memory") as server:
        sku = await server.put(5)
        async with Redis.from_url(server.url) as store:
            row: bytes = await store.hget("{c0}:items", sku)  # type: ignore[misc]  # a sync or an async answer
            await store.hset("{c0}:items", sku, b"\x09" + row[1:])  # type: ignore[misc]
        running = await asyncio.create_subprocess_exec(
            *COMMAND, "check", "--target", server.target, stdout=-1, env=ENVIRONMENT
        )
        said, _errors = await running.communicate()
        assert running.returncode == 1
        text = said.decode()
        assert "BROKEN" in text
        assert f"replay_equals_state: {sku} at #2: on_hand 9, by the ledger 5" in text
