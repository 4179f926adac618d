"""Histories decided again from their ledger: every entry and every row comes out as recorded."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from holdfast_server.kernel.records import decode_entries, decode_level
from holdfast_server.ledger.leaf import EVENT_SIZE, StoredBatch, read_batch
from holdfast_server.ledger.redeciding import Difference, Redecider
from holdfast_server.ledger.state import Fold, state_digest
from holdfast_server.model import Kind, LedgerEntry
from tests.contract.histories import SKUS, History, histories, long_history
from tests.hosts import START_MS, ScriptHost, execute
from tests.recorded import Recorded, recorded

bounded = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
COUNTERS = ("on_hand", "held", "committed", "backordered")


def differences(cell: Recorded) -> list[Difference]:
    redecider = Redecider()
    found = map(redecider.follow, cell.batches)
    return [difference for difference in found if difference]


def entries(batch: StoredBatch) -> list[LedgerEntry]:
    return decode_entries([1, *batch])


@bounded
@given(history=histories)
def test_every_batch_of_a_history_is_decided_again_to_the_same_bytes(history: History) -> None:
    assert differences(recorded(history)) == []


@pytest.mark.parametrize("seed", range(4))
def test_both_ways_through_a_long_history_end_in_the_state_of_its_cell(seed: int) -> None:
    cell = recorded(long_history(seed, batches=40, ids=300))
    redecider, fold = Redecider(), Fold()
    for batch in cell.batches:
        assert redecider.follow(batch) is None
        fold.take(batch)
    assert fold.sequence == cell.tables.sequence
    live = state_digest(cell.tables.items, cell.tables.holds)
    assert state_digest(*redecider.state()) == live
    assert state_digest(fold.rows, fold.holds) == live


@pytest.mark.parametrize("seed", range(2))
def test_the_ledger_of_a_store_is_decided_again_in_this_process(
    script_host: ScriptHost, seed: int
) -> None:
    history = long_history(seed, batches=20, ids=40)
    script_host.hold_budget, script_host.retention_ms = 100, history.retention_ms
    now_ms = START_MS
    for batch in history.batches:
        now_ms += batch.step_ms
        execute(script_host, batch.operations, now_ms=now_ms)
    redecider, fold = Redecider(), Fold()
    for _id, fields in script_host.client.xrange(script_host.keys.ledger):
        stored = read_batch(fields[b"e"])
        assert redecider.follow(stored) is None
        fold.take(stored)
    state = script_host.state()
    live = state_digest(state.items, state.holds)
    assert state_digest(*redecider.state()) == state_digest(fold.rows, fold.holds) == live


@bounded
@given(history=histories)
def test_a_batch_is_decided_up_to_any_of_its_entries(history: History) -> None:
    moved: dict[str, list[int]] = defaultdict(lambda: [0] * len(COUNTERS))
    before = Fold()
    records: dict[bytes, bytes] = {}
    for batch in recorded(history).batches:
        for index, entry in enumerate(entries(batch)):
            for move in entry.movements:
                moved[move.sku] = [a + b for a, b in zip(moved[move.sku], move[2:], strict=True)]
            redecider = Redecider()
            redecider.keep(before.rows, records)
            made = redecider.decide(batch, entry.sequence)
            whole = (index + 1) * EVENT_SIZE
            if entry.kind is not Kind.SUPERSEDE:
                assert made.events == list(batch.events[:whole])
            for sku in SKUS:
                row = made.rows.get(sku.encode()) or before.rows.get(sku.encode())
                if row:
                    level = decode_level(sku, row)
                    assert [getattr(level, name) for name in COUNTERS] == moved[sku]
        before.take(batch)
        pairs = zip(batch.events[1::EVENT_SIZE], batch.events[2::EVENT_SIZE], strict=True)
        records.update(pairs)


def altered(body: bytes, path: tuple[int, ...], change: Any) -> StoredBatch:
    fields = msgpack.unpackb(body, raw=True)
    part = fields
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = change(part[path[-1]])
    return StoredBatch(*map(int, fields[1:4]), *fields[4:])


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        ((4, 2), lambda record: b"?" + record[1:], "another|cannot"),
        (
            (4, 2),
            lambda record: record[:8] + bytes([record[8] ^ 1]) + record[9:],
            "another|cannot",
        ),
        ((4, 0), lambda _kind: 6, "another|cannot"),
        ((4, 0), lambda _kind: 12, "cannot"),
        ((4, 3), lambda moves: b"" if moves is False else False, "another|cannot"),
        ((5, 1), lambda row: row[:-1] + b"\x07", "rows|another"),
        ((5,), lambda rows: rows[:-2], "rows|cannot"),
        ((2,), lambda now: now + 1, "another|rows|cannot"),
        ((3,), lambda first: first + 1, "another|rows"),
    ],
)
def test_a_decision_that_was_altered_is_found(
    path: tuple[int, ...], change: Any, words: str
) -> None:
    cell = recorded(long_history(3, batches=6, ids=8))
    bodies, batches = cell.tables.bodies, cell.batches
    for number in range(1, len(batches)):
        redecider = Redecider()
        for batch in batches[:number]:
            assert redecider.follow(batch) is None
        difference = redecider.follow(altered(bodies[number], path, change))
        assert difference is not None
        assert any(word in difference.message for word in words.split("|"))
