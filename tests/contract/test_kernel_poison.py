"""What no caller should send and no store should hold: refused whole, with nothing written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from holdfast_server.kernel.inprocess import KernelFault
from holdfast_server.kernel.wire import encode_batch
from holdfast_server.model import (
    AdjustStock,
    Caller,
    Code,
    Commit,
    Context,
    Extend,
    Line,
    Operation,
    Policy,
    PutItem,
    Release,
    Reserve,
    SetStock,
)
from tests.hosts import START_MS, Host, InProcessHost, ScriptHost, execute

P = Caller("p")
NOW_MS = START_MS + 50
BEYOND_EXACT = 2**53 + 1
NO_TEXT = (None, False, 5, 1.5)
NO_NUMBER = (None, False, "9")
NO_COUNT = (*NO_NUMBER, -1, 1.5, BEYOND_EXACT, float("nan"), float("inf"))

OPENING = (
    PutItem("r1", P, "A", Policy(oversell_limit=3, late_commit=2), (("web", 9),)),
    AdjustStock("r2", P, "A", 10),
    Reserve("h1", P, (Line("A", 2), Line("A", 1, "default")), context=Context(channel="web")),
    Reserve("h9", P, (Line("A", 1),), ttl_ms=100),
)
RESERVE = Reserve("h2", P, (Line("A", 2, "default"),), 1_000, replaces="h1")
COMMIT = Commit("h1", P, (Line("A", 1),), "order")
RELEASE = Release("h1", P, (Line("A", 1),))
EXTEND = Extend("h1", P, 20_000)
PUT = PutItem("r3", P, "A", Policy(title="t"), (("web", 4),))
ADJUST = AdjustStock("r4", P, "A", 3)
SET = SetStock("r5", P, "A", 3)

# An operation, the place of one of its values (their order stands in its Lua file), what it is.
POISON: list[tuple[Operation, int, str, tuple[Any, ...]]] = [
    (RESERVE, 0, "kind", (False, 0, 5, 6, 99, 1.5, "1")),
    (RESERVE, 1, "size", (*NO_COUNT, 0, 1, 13, 15)),
    (RESERVE, 2, "id", (*NO_TEXT, "")),
    (RESERVE, 4, "ttl", (*NO_COUNT, 99)),
    (RESERVE, 5, "flags", (*NO_COUNT, 4)),
    (RESERVE, 6, "if_sequence", NO_NUMBER),
    (RESERVE, 7, "replaces", NO_TEXT),
    (RESERVE, 8, "channel", NO_TEXT),
    (RESERVE, 9, "request", NO_TEXT),
    (RESERVE, 10, "count", (*NO_COUNT, 0, 2, 101)),
    (RESERVE, 11, "sku", (*NO_TEXT, "")),
    (RESERVE, 12, "location", NO_TEXT),
    (RESERVE, 13, "quantity", (*NO_COUNT, 0, 1_000_000_001)),
    (COMMIT, 2, "id", (*NO_TEXT, "")),
    (COMMIT, 5, "if_sequence", NO_NUMBER),
    (COMMIT, 6, "order_ref", (*NO_TEXT, "x" * 256)),
    (COMMIT, 7, "note", NO_TEXT),
    (COMMIT, 8, "count", (*NO_COUNT, 0, 2, 101)),
    (COMMIT, 11, "quantity", (*NO_COUNT, 0)),
    (RELEASE, 5, "fingerprint", (5, 1.5, "x" * 256)),
    (RELEASE, 6, "note", NO_TEXT),
    (RELEASE, 7, "count", (*NO_COUNT, 0, 2, 101)),
    (RELEASE, 10, "quantity", (*NO_COUNT, 0)),
    (EXTEND, 1, "size", (*NO_COUNT, 6, 8)),
    (EXTEND, 5, "ttl", (*NO_COUNT, 0)),
    (EXTEND, 6, "note", NO_TEXT),
    (PUT, 2, "id", (*NO_TEXT, "", "h5")),
    (PUT, 3, "request", (*NO_TEXT, "")),
    (PUT, 4, "note", NO_TEXT),
    (PUT, 5, "sku", (*NO_TEXT, "")),
    (PUT, 6, "safety_stock", (None, "9", -1, 1.5, BEYOND_EXACT)),
    (PUT, 15, "late_commit", (None, "1", 0, 4, 1.5)),
    (PUT, 16, "sellout_horizon", (None, "1", -1, 3_600_001, 1.5)),
    (PUT, 19, "channels", (None, False)),
    (ADJUST, 2, "id", (*NO_TEXT, "", "h5")),
    (ADJUST, 3, "request", (*NO_TEXT, "")),
    (ADJUST, 4, "note", NO_TEXT),
    (ADJUST, 5, "sku", (*NO_TEXT, "")),
    (ADJUST, 6, "location", (None, False)),
    (ADJUST, 7, "delta", (None, False, "9", 0, 1.5, BEYOND_EXACT, float("nan"))),
    (SET, 9, "on_hand", (None, False, "9", 1.5, BEYOND_EXACT, float("nan"))),
    (SET, 11, "if_sequence", NO_NUMBER),
]
CASES = [
    pytest.param(operation, place, bad, id=f"{type(operation).__name__}-{name}-{str(bad)[:20]}")
    for operation, place, name, values in POISON
    for bad in values
]


def codes(host: Host, operations: Sequence[Operation]) -> list[Code]:
    """Decide a batch and return the codes of its outcomes."""
    outcomes: list[Any] = execute(host, operations, now_ms=NOW_MS).outcomes
    return [Code(outcome.code) for outcome in outcomes]


@pytest.mark.parametrize(("operation", "place", "bad"), CASES)
def test_a_poisoned_value_writes_nothing(
    kernel_host: Host, operation: Operation, place: int, bad: Any
) -> None:
    execute(kernel_host, OPENING, now_ms=START_MS)
    kernel_host.decide([], 0, now_ms=NOW_MS)
    before = kernel_host.digest()
    flat = encode_batch([operation])
    flat[place] = bad
    try:
        _now, _sequence, _more, outs = kernel_host.decide(flat, 1, now_ms=NOW_MS)
        assert all(out[0] >= Code.INVALID for out in outs)
    except KernelFault:
        pass  # the whole batch was refused: its sender sends the operations one by one
    assert kernel_host.digest() == before
    assert codes(kernel_host, [operation]) == [Code.OK]


def test_a_bad_argument_does_not_harm_its_batch(kernel_host: Host) -> None:
    execute(kernel_host, OPENING, now_ms=START_MS)
    batch: list[Operation] = [
        Reserve("h2", P, (Line("A", 1),)),
        Reserve("h3", P, (Line("A", -5),)),
        AdjustStock("r9", P, "A", 2**53 + 1),
        Commit("h2", P),
    ]
    assert codes(kernel_host, batch) == [Code.OK, Code.INVALID, Code.INVALID, Code.OK]


@pytest.mark.parametrize(
    ("table", "key", "record"),
    [
        pytest.param("items", b"A", b"", id="empty item"),
        pytest.param("items", b"A", b"too short", id="short item"),
        pytest.param("items", b"A", b"\0" * 28, id="item without a policy"),
        pytest.param("items", b"A\x1fdefault", b"\0" * 19, id="short location"),
        pytest.param("holds", b"h1", b"", id="empty hold"),
        pytest.param("holds", b"h1", b"H", id="short hold"),
        pytest.param("holds", b"h1", b"H" + b"\0" * 35, id="hold without a request"),
        pytest.param("holds", b"h1", b"H" + b"\0" * 35 + b"p\x1dweb", id="half a request"),
        pytest.param("holds", b"h1", b"H\0\x09" + b"\0" * 33 + b"p\x1d\x1d", id="lines cut off"),
    ],
)
def test_a_damaged_record_is_met_without_writing(
    kernel_host: Host, table: str, key: bytes, record: bytes
) -> None:
    execute(kernel_host, OPENING, now_ms=START_MS)
    kernel_host.overwrite(table, key, record)
    kernel_host.decide([], 0, now_ms=NOW_MS)
    before = kernel_host.digest()
    web = Context(channel="web")
    reserve = Reserve("h2", P, (Line("A", 1, "default"),), context=web)
    with pytest.raises(KernelFault):
        execute(kernel_host, [reserve, COMMIT], now_ms=NOW_MS)
    assert kernel_host.digest() == before


def test_a_live_hold_is_not_purged_whatever_the_purge_was_told(kernel_host: Host) -> None:
    kernel_host.retention_ms = 10
    execute(kernel_host, OPENING, now_ms=START_MS)
    kernel_host.note_ended(START_MS, b"h1")
    kernel_host.decide([], 0, now_ms=NOW_MS)
    assert b"h1" in kernel_host.state().holds


@pytest.mark.parametrize("name", ["items", "holds", "expiry", "ended", "ledger"])
def test_a_key_of_another_type_is_met_without_writing(script_host: ScriptHost, name: str) -> None:
    script_host.client.set(getattr(script_host.keys, name), "not ours")
    script_host.client.hset(script_host.keys.meta, "clock", NOW_MS)
    before = script_host.digest()
    with pytest.raises(KernelFault, match="WRONGTYPE"):
        execute(script_host, OPENING, now_ms=NOW_MS)
    assert script_host.digest() == before


def test_a_ledger_that_is_ahead_stops_the_batch_before_it_writes(script_host: ScriptHost) -> None:
    execute(script_host, OPENING, now_ms=START_MS)
    script_host.client.xadd(script_host.keys.ledger, {"e": "x"}, id="99-0")
    script_host.client.hset(script_host.keys.meta, "clock", NOW_MS)
    before = script_host.digest()
    with pytest.raises(KernelFault, match="equal or smaller"):
        execute(script_host, [RESERVE], now_ms=NOW_MS)
    assert script_host.digest() == before


@pytest.mark.parametrize("known", [(1, 5), (2, 4), (0, 0)])
def test_another_history_is_a_rollback_and_writes_nothing(
    script_host: ScriptHost, known: tuple[int, int]
) -> None:
    execute(script_host, OPENING, now_ms=START_MS)
    script_host.client.hset(script_host.keys.meta, "clock", NOW_MS)
    before = script_host.digest()
    with pytest.raises(KernelFault, match=r"^ROLLBACK 1 4$"):
        script_host.decide(encode_batch([RESERVE]), 1, now_ms=NOW_MS, known=known)
    assert script_host.digest() == before


def test_a_wiped_store_is_a_rollback(script_host: ScriptHost) -> None:
    script_host.client.flushall()
    with pytest.raises(KernelFault, match=r"^ROLLBACK 0 0$"):
        script_host.decide([], 0, now_ms=NOW_MS)


def test_tables_behind_their_caller_are_a_rollback(in_process_host: InProcessHost) -> None:
    in_process_host.reset()
    execute(in_process_host, OPENING, now_ms=START_MS)
    with pytest.raises(KernelFault, match=r"^ROLLBACK 1 4$"):
        in_process_host.kernel.execute([RESERVE], now_ms=NOW_MS, known_sequence=5)
    assert len(in_process_host.kernel.tables.ledger) == 4
