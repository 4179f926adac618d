"""`holdfast audit`: the past, as an auditor at a terminal sees it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.e2e.test_cli import documents, holdfast, load, served
from tests.serving import unique


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of the server."""
    return tmp_path_factory.mktemp("audit") / "data"


@pytest.fixture(scope="module")
def target(data: Path) -> Iterator[str]:
    """A server with an archive that the tests of this module share."""
    with served(data) as (_running, address):
        yield address


@pytest.fixture(scope="module")
def sold(target: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An item of 5 units, and a reservation of 2 that was sold; both have stories."""
    sku, name = unique("sku-"), unique("cart-")
    content = f"sku,location,on_hand,safety_stock\n{sku},Main,5,1\n"
    assert load(target, tmp_path_factory.mktemp("items"), content).returncode == 0
    said = ("--agent", "agent 7", "--session", "s-1", "--rationale", "cheapest of three")
    held = holdfast("reserve", f"{sku}=2", "--id", name, "--ttl", "1m", *said, target=target)
    assert held.returncode == 0
    assert holdfast("commit", name, "--order-ref", "order-1", target=target).returncode == 0
    return sku, name


def last(target: str, sku: str) -> int:
    """Return the sequence of the last entry that changed an item."""
    found = json.loads(holdfast("stock", sku, "--json", target=target).stdout)
    return int(found["levels"][0]["revision"])


def test_show_tells_what_was_seen_decided_and_why(target: str, sold: tuple[str, str]) -> None:
    sku, name = sold
    done = holdfast("audit", "show", name, target=target)
    assert (done.returncode, done.stderr) == (0, "")
    head, reserved, committed = done.stdout.strip().split("\n\n")
    assert head.startswith(f"{name}: COMMITTED")
    for words in (
        "RESERVE by",
        'agent: agent 7, session: s-1, "cheapest of three"',
        f"{sku}: 4 available (5 on hand, 0 held, 0 committed, 1 safety)",
        "late commit REJECT",
        f"held 2 of {sku} until",
        f"2 of {sku} are within 4 available",
        f"{sku} held +2",
        "comes out the same",
    ):
        assert words in reserved
    assert f"sold 2 of {sku} for order-1" in committed
    assert "policy" not in committed


def test_show_tells_what_a_watch_had_told(target: str, tmp_path: Path) -> None:
    sku, name, who = unique("sku-"), unique("cart-"), ("--principal", unique("agent-"))
    assert load(target, tmp_path, f"sku,on_hand\n{sku},5\n").returncode == 0
    assert holdfast("watch", sku, "--limit", "1", *who, target=target).returncode == 0
    assert holdfast("reserve", sku, "--id", name, *who, target=target).returncode == 0
    done = holdfast("audit", "show", name, target=target)
    _head, told, _reserved = done.stdout.strip().split("\n\n")
    assert "had been told by a watch (w" in told
    assert f"saw      {sku}: 5 available" in told


def test_show_is_a_document_a_decision_with_json(target: str, sold: tuple[str, str]) -> None:
    sku, name = sold
    told = documents(holdfast("audit", "show", name, "--json", target=target).stdout)
    assert [decision["entry"]["kind"] for decision in told] == ["RESERVE", "COMMIT"]
    assert all(decision["reproduced"] for decision in told)
    assert told[0]["seen"][0]["sku"] == told[0]["items"][0]["sku"] == sku


def test_stock_is_worked_out_as_of_a_sequence_or_a_time(target: str, sold: tuple[str, str]) -> None:
    sku, _name = sold
    sequence = last(target, sku) - 1
    words = ("audit", "stock", sku, "--at", str(sequence))
    assert f"after #{sequence}\n" in holdfast(*words, target=target).stdout
    found = json.loads(holdfast(*words, "--json", target=target).stdout)
    (level,) = found["levels"]
    assert (level["held"], level["committed"], found["sequence"]) == (2, 0, sequence)
    again = ("audit", "stock", sku, "--at", level["as_of"], "--json")
    assert json.loads(holdfast(*again, target=target).stdout)["levels"][0]["sku"] == sku


def test_explain_adds_up_entry_by_entry(target: str, sold: tuple[str, str]) -> None:
    sku, name = sold
    said = holdfast("audit", "explain", sku, target=target).stdout
    assert f"{sku} after #" in said
    assert f"+2  COMMIT  {name}" in said
    held = holdfast("audit", "explain", sku, "--at", str(last(target, sku) - 1), target=target)
    assert f"+2  RESERVE  {name}" in held.stdout


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("show", "nothing"), 1, "UNKNOWN_RESERVATION"),
        (("explain", "nothing"), 1, "UNKNOWN_SKU"),
        (("stock", "nothing", "--at", "1"), 1, "UNKNOWN_SKU: not there at that moment: nothing"),
        (("stock", "nothing", "--at", "999999"), 1, "RESUME_TOKEN_EXPIRED"),
        (("stock", "nothing", "--at", "soon"), 2, "is no sequence, and no time such as"),
        (("stock", "nothing"), 2, "Missing option '--at'"),
        (("export", "--format", "parquet"), 1, "Parquet needs --output FILE"),
    ],
)
def test_what_cannot_be_told_is_said_in_a_line(
    target: str, sold: tuple[str, str], words: tuple[str, ...], status: int, said: str
) -> None:
    done = holdfast("audit", *words, target=target)
    assert done.returncode == status
    assert said in done.stderr


def test_export_writes_the_same_entries_in_both_forms(
    target: str, sold: tuple[str, str], tmp_path: Path
) -> None:
    sku, name = sold
    first, end = last(target, sku) - 1, last(target, sku)
    words = ("audit", "export", "--from", str(first), "--to", str(end))
    lines = documents(holdfast(*words, target=target).stdout)
    assert [(entry["sequence"], entry["id"]) for entry in lines] == [(first, name), (end, name)]
    file = tmp_path / "ledger.parquet"
    parquet = ("--format", "parquet", "--output", str(file))
    assert holdfast(*words, *parquet, target=target).stdout == f"2 entries written to {file}\n"
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(file).to_pylist()
    for row, entry in zip(rows, lines, strict=True):
        for field in ("sequence", "epoch", "kind", "id", "movements", "order_ref"):
            assert row[field] == entry[field]
        assert json.loads(row["reservation"]) == entry["reservation"]
        assert row["agent_id"] == entry["context"]["agent_id"]
    assert rows[0]["time"].isoformat(timespec="milliseconds") == lines[0]["time"]


def test_check_decides_an_archive_again_and_finds_what_was_altered(
    target: str, data: Path, sold: tuple[str, str], tmp_path: Path
) -> None:
    sku, name = sold
    assert holdfast("audit", "show", name, target=target).returncode == 0  # it is archived then
    words = ("audit", "check", "--data", str(data))
    done = holdfast(*words, "--json")
    assert done.returncode == 0
    names = [check["name"] for check in json.loads(done.stdout)["checks"]]
    assert names == ["replay_decides_alike", "replay_equals_archive", "archive_equals_ledger"]
    files = (data / "archive.db", tmp_path / "archive.db")
    with closing(sqlite3.connect(files[0])) as kept, closing(sqlite3.connect(files[1])) as altered:
        kept.backup(altered)
        altered.execute("UPDATE items SET row = zeroblob(100) WHERE sku = ?", (sku,))
        altered.commit()
    found = holdfast("audit", "check", "--data", str(tmp_path))
    assert found.returncode == 1
    assert "replay_equals_archive  BROKEN" in found.stdout
    assert f"archive_equals_ledger: items ('{sku}',): not as the ledger left it" in found.stdout
    nothing = holdfast("audit", "check", "--data", str(tmp_path / "nothing"))
    assert nothing.returncode == 1
    assert "there is no archive at" in nothing.stderr
