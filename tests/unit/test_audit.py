"""Audit records byte for byte, and the trail when it is full or the store is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from holdfast_server.engine.audited import AuditedStore
from holdfast_server.errors import Overloaded, StoreUnavailable
from holdfast_server.kernel.inprocess import KernelInProcess
from holdfast_server.kernel.source import library
from holdfast_server.ledger import trail as trail_module
from holdfast_server.ledger.audit import (
    SKUS_A_RECORD,
    AuditKind,
    AuditRecord,
    read_record,
    records_of,
    whole,
)
from holdfast_server.ledger.leaf import LEAF_BYTES_MAX
from holdfast_server.ledger.trail import Trail, TrailLimits
from holdfast_server.model import (
    AdjustStock,
    BatchResult,
    Caller,
    Code,
    Commit,
    Context,
    GetStock,
    Level,
    Line,
    Operation,
    Outcome,
    Position,
    PutItem,
    RefusedLine,
    Reserve,
)

AGENT, OPERATOR = Caller("agent", False), Caller("operator", True)
SAID = Context("a-1", "s-1", "web", "order 7", "it is red")
AT = Position(3, 9)


class Deciding:
    """A store over the kernel in this process."""

    def __init__(self) -> None:
        self.kernel = KernelInProcess()
        self.known = AT
        self.calls = 0

    async def execute(self, operations: Sequence[Operation]) -> BatchResult:
        self.calls += 1
        return self.kernel.execute(operations)


class Shelf:
    """Where records go; it can be away, or say that much waits."""

    def __init__(self) -> None:
        self.kept: list[AuditRecord] = []
        self.groups: list[int] = []
        self.is_away = False
        self.loses_answers = False
        self.waiting = 0

    async def add_queries(self, server: str, number: int, records: Sequence[bytes]) -> int:
        if self.is_away:
            raise StoreUnavailable("away")
        if records and number not in self.groups:
            self.groups.append(number)
            self.kept += map(read_record, records)
        if self.loses_answers:
            self.loses_answers = False
            raise StoreUnavailable("the answer was lost")
        return self.waiting


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail_module, "FLUSH_S", 0.0)
    monkeypatch.setattr(trail_module, "RETRY_S", 0.0)


def store_level(audited: AuditedStore) -> Level | None:
    assert isinstance(audited.store, Deciding)
    (outcome,) = audited.store.kernel.execute([READ]).outcomes
    assert isinstance(outcome, Outcome)
    return outcome.levels[0]


def whole_queries(records: Sequence[AuditRecord]) -> list[str]:
    """Return the ids of queries of which every SKU is told."""
    told: dict[str, int] = {}
    for record in records:
        told[record.id] = told.get(record.id, 0) + len(record.answered[0])
    return [record.id for record in records if not record.part and told[record.id] == record.asked]


@asynccontextmanager
async def running(trail: Trail) -> AsyncIterator[None]:
    task = asyncio.create_task(trail.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110  # there is no event to await
        await asyncio.sleep(0)


def stocked(store: Deciding) -> None:
    store.kernel.execute([PutItem("p", OPERATOR, "A"), AdjustStock("c", OPERATOR, "A", 5)])


# ---- Records ----


async def test_a_query_keeps_what_was_answered() -> None:
    store = Deciding()
    stocked(store)
    asked = GetStock(("A", "B"), AGENT, SAID)
    (outcome,) = (await store.execute([asked])).outcomes
    assert isinstance(outcome, Outcome)
    (record,) = records_of(asked, outcome, "q-1", AT)
    again = read_record(record.pack(4))
    assert again.pack(4) == record.pack(4)
    assert again[:8] == (AuditKind.QUERY, outcome.now_ms, "q-1", 0, "agent", SAID, 3, 2)
    assert again.asked == 2
    assert tuple(again.levels) == outcome.levels


async def test_a_refusal_keeps_what_was_asked_and_why_not() -> None:
    store = Deciding()
    stocked(store)
    asked = Reserve("r-1", AGENT, (Line("A", 6, ""),), 5_000, SAID)
    (outcome,) = (await store.execute([asked])).outcomes
    assert isinstance(outcome, Outcome)
    (record,) = records_of(asked, outcome, "", AT)
    again = read_record(record.pack(0))
    assert (again.kind, again.id, again.context) == (AuditKind.DECISION, "r-1", SAID)
    assert again.asked == ["Reserve", [["A", 6, ""]], {"ttl_ms": 5_000}]
    code, lines, *_levels = again.answered
    assert (code, lines) == (10, [["A", "", 6, 5, 0]])
    assert again.levels == list(outcome.levels)


async def test_an_impossible_commit_is_kept_too() -> None:
    store = Deciding()
    asked = Commit("nobody", AGENT, order_ref="o-1")
    (outcome,) = (await store.execute([asked])).outcomes
    assert isinstance(outcome, Outcome)
    (record,) = records_of(asked, outcome, "", AT)
    again = read_record(record.pack(0))
    assert again.asked == ["Commit", [], {"order_ref": "o-1"}]
    assert again.answered[:2] == [22, "nobody"]


def test_the_largest_query_fits_its_leaves() -> None:
    skus = tuple(f"{number:04d}".ljust(128, "\U0001f34e") for number in range(1_000))
    levels = tuple(Level(sku, *[2**31 - 1] * 22) for sku in skus)
    context = Context(*["é" * 512] * 5)
    records = list(
        records_of(GetStock(skus, AGENT, context), Outcome(0, 1, 2, None, levels), "q", AT)
    )
    assert [record.part for record in records] == list(range(-(-1_000 // SKUS_A_RECORD)))
    assert max(len(record.pack(0)) for record in records) <= LEAF_BYTES_MAX
    assert [level for record in records for level in record.levels] == list(levels)


def test_the_largest_refusal_fits_its_leaves() -> None:
    names = [f"{number:03d}".ljust(128, "\U0001f34e") for number in range(100)]
    lines = tuple(Line(name, 10**9, "\U0001f34e" * 64) for name in names)
    asked = Reserve("r" * 64, Caller("p" * 128), lines, 1, Context(*["é" * 512] * 5))
    refused = tuple(RefusedLine(line.sku, line.location, 10**9, -(10**9), 2**45) for line in lines)
    levels = tuple(Level(name, *[2**31 - 1] * 22) for name in names)
    outcome = Outcome(Code.OUT_OF_STOCK, 2**53, 2**45, None, levels, refused)
    (record,) = records_of(asked, outcome, "", AT)
    parts = [read_record(leaf) for leaf in record.leaves(0)]
    assert len(parts) > 1
    assert max(map(len, record.leaves(0))) <= LEAF_BYTES_MAX
    (again,) = whole(parts)
    assert again.pack(0) == record.pack(0)
    assert again.levels == list(levels)
    assert [part.levels for part in parts] == [[]] * len(parts)


def test_a_record_that_lacks_a_part_is_left_out() -> None:
    long = AuditRecord(AuditKind.WATCH, 1, "w", 0, "p", SAID, 1, 2, ["s" * 200_000], [1])
    parts = [read_record(leaf) for leaf in long.leaves(0)]
    short = long._replace(id="x", asked=["s"])
    assert whole([parts[1], short, *parts[:-1], short, *parts]) == [short, short, long]
    assert whole([*parts[:2], parts[0], *parts]) == [long]


@pytest.mark.parametrize("raw", [b"", b"\x90", b"\x01", b"\x9c" + bytes(12)])
def test_what_is_no_record_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"record|Unpack|unpack|format"):
        read_record(raw)


# ---- What is noted ----


async def test_every_answer_without_an_entry_is_noted_once() -> None:
    store, shelf = Deciding(), Shelf()
    stocked(store)
    trail = Trail(shelf, store, cell=0)
    audited = AuditedStore(store, trail)
    operations: list[Operation] = [
        GetStock(("A",), AGENT, SAID),
        Reserve("r-1", AGENT, (Line("A", 5, ""),), 5_000, SAID),
        Reserve("r-2", AGENT, (Line("A", 1, ""),), 5_000, SAID),
        Commit("r-1", AGENT),
        Commit("r-3", AGENT),
    ]
    outcomes = (await audited.execute(operations)).outcomes
    await trail.aclose()
    kinds = [(record.kind, record.id) for record in shelf.kept]
    assert isinstance(outcomes[0], Outcome)
    assert kinds == [
        (AuditKind.QUERY, outcomes[0].detail),
        (AuditKind.DECISION, "r-2"),
        (AuditKind.DECISION, "r-3"),
    ]


async def test_ids_of_queries_are_unique_and_sort_by_age() -> None:
    trail = Trail(Shelf(), Deciding(), cell=0)
    names = [trail.query_id() for _ in range(300)]
    assert names == sorted(set(names))


# ---- A full trail ----


READ = GetStock(("A",), AGENT, SAID)
HOLD = Reserve("r-9", AGENT, (Line("A", 1, ""),), 5_000, SAID)
COMMIT = Commit("nobody", AGENT)


async def full(
    *, queries: bool = False, mutations: bool = True
) -> tuple[AuditedStore, Trail, Shelf]:
    store, shelf = Deciding(), Shelf()
    stocked(store)
    trail = Trail(shelf, store, cell=0, limits=TrailLimits(records_max=2))
    audited = AuditedStore(store, trail, blocks_mutations=mutations, blocks_queries=queries)
    await audited.execute([READ, READ])
    assert trail.is_full_of_queries
    assert not trail.is_full
    await audited.execute([COMMIT])
    assert trail.is_full
    return audited, trail, shelf


async def test_a_full_trail_drops_queries_and_says_how_many() -> None:
    audited, trail, shelf = await full()
    for _ in range(3):
        (outcome,) = (await audited.execute([READ])).outcomes
        assert isinstance(outcome, Outcome)
        assert outcome.levels
    assert trail.counters.dropped == 3
    await trail.aclose()
    assert [record.kind for record in shelf.kept].count(AuditKind.QUERY) == 2
    (gap,) = (record for record in shelf.kept if record.kind is AuditKind.DROPPED)
    assert gap.answered == 3


@pytest.mark.parametrize(("operation", "queries"), [(HOLD, False), (READ, True)])
async def test_what_may_not_go_unnoted_waits_for_room(operation: Operation, queries: bool) -> None:
    audited, trail, shelf = await full(queries=queries)
    waiting = asyncio.create_task(audited.execute([operation]))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    async with running(trail):
        assert (await waiting).outcomes
    assert len(shelf.kept) >= 2
    assert trail.counters.dropped == 0


async def test_what_finds_no_room_is_refused_before_it_is_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    audited, _trail, _shelf = await full()
    monkeypatch.setattr("holdfast_server.engine.audited.ROOM_S", 0.0)
    hold, read, commit = (await audited.execute([HOLD, READ, COMMIT])).outcomes
    assert isinstance(hold, Overloaded)
    assert (str(hold), hold.retry_after_ms) == ("the audit trail is behind", 500)
    assert isinstance(read, Outcome)
    assert (read.levels[0], read.detail) == (store_level(audited), "")
    assert isinstance(commit, Outcome)
    assert commit.code == Code.UNKNOWN_RESERVATION
    (outcome,) = (await audited.store.execute([HOLD])).outcomes
    assert isinstance(outcome, Outcome)
    assert outcome.code == Code.OK  # not a replay: it had not been decided


async def test_queries_alone_keep_nobody_from_selling() -> None:
    store, shelf = Deciding(), Shelf()
    stocked(store)
    trail = Trail(shelf, store, cell=0, limits=TrailLimits(records_max=2))
    audited = AuditedStore(store, trail)
    await audited.execute([READ] * 5)
    (outcome,) = (await audited.execute([HOLD])).outcomes
    assert isinstance(outcome, Outcome)
    assert outcome.code == Code.OK


async def test_a_query_takes_room_for_each_of_its_skus() -> None:
    store, shelf = Deciding(), Shelf()
    trail = Trail(shelf, store, cell=0, limits=TrailLimits(records_max=100))
    await AuditedStore(store, trail).execute([GetStock(tuple(map(str, range(100))), AGENT)])
    assert trail.is_full_of_queries
    await trail.aclose()
    assert not trail.is_full_of_queries


async def test_a_gap_is_told_where_it_is() -> None:
    audited, trail, shelf = await full()
    await audited.execute([READ])
    async with running(trail):
        await until(lambda: not trail.is_full_of_queries)
    (outcome,) = (await audited.execute([READ])).outcomes
    assert isinstance(outcome, Outcome)
    await trail.aclose()
    kinds = [record.kind for record in shelf.kept]
    assert kinds == [
        AuditKind.QUERY,
        AuditKind.QUERY,
        AuditKind.DECISION,
        AuditKind.DROPPED,
        AuditKind.QUERY,
    ]
    assert shelf.kept[-1].id == outcome.detail


async def test_a_group_whose_answer_was_lost_is_kept_once() -> None:
    store, shelf = Deciding(), Shelf()
    trail = Trail(shelf, store, cell=0)
    shelf.loses_answers = True
    async with running(trail):
        await AuditedStore(store, trail).execute([READ, READ])
        await until(lambda: trail.counters.failures == 1 and trail.counters.kept == 2)
        await AuditedStore(store, trail).execute([READ])
        await until(lambda: len(shelf.kept) == 3)
    assert len({record.id for record in shelf.kept}) == 3


async def test_a_group_is_bounded_and_holds_all_parts_of_a_record() -> None:
    store, shelf = Deciding(), Shelf()
    trail = Trail(shelf, store, cell=0)
    skus = tuple("s" * 120 + str(number) for number in range(100, 1_000))
    asked = GetStock(skus, AGENT)
    await AuditedStore(store, trail).execute([asked] * 5)
    await trail.aclose()
    assert len(shelf.groups) > 1
    assert len(whole_queries(shelf.kept)) == 5


async def test_mutations_go_on_unnoted_if_they_may() -> None:
    audited, trail, _shelf = await full(mutations=False)
    await audited.execute([HOLD._replace(lines=(Line("A", 99, ""),))])
    assert trail.counters.dropped == 1


async def test_a_store_that_is_away_is_waited_for() -> None:
    store, shelf = Deciding(), Shelf()
    trail = Trail(shelf, store, cell=0)
    shelf.is_away = True
    async with running(trail):
        await AuditedStore(store, trail).execute([READ])
        await until(lambda: trail.counters.failures > 0)
        shelf.is_away = False
        await until(lambda: len(shelf.kept) == 1)
    assert trail.counters.kept == 1


async def test_a_stream_that_nobody_archives_makes_the_trail_full() -> None:
    store, shelf = Deciding(), Shelf()
    trail = Trail(shelf, store, cell=0, limits=TrailLimits(groups_max=5))
    shelf.waiting = 6
    async with running(trail):
        await AuditedStore(store, trail).execute([READ])
        await until(lambda: trail.is_full)
        shelf.waiting = 5
        assert await trail.room(10, for_query=True)


async def test_the_rest_is_kept_at_the_end_or_said_to_be_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, shelf = Deciding(), Shelf()
    trail = Trail(shelf, store, cell=0)
    trail.note_configuration({"lanes": 2})
    await trail.aclose()
    assert [record.kind for record in shelf.kept] == [AuditKind.CONFIGURATION]
    assert shelf.kept[0].asked == {"lanes": "2"}
    assert shelf.kept[0].answered == library().plain
    shelf.is_away = True
    trail.note_configuration({})
    await trail.aclose()
    assert "audit records lost" in capsys.readouterr().out
