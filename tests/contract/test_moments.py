"""Levels as of any moment, from the archive alone, against what was answered at that moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from holdfast_server.errors import ResumeTokenExpired, UnknownSku
from holdfast_server.kernel.records import decode_level
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.explaining import Term, explain
from holdfast_server.ledger.moments import at_sequence, at_time
from holdfast_server.ledger.past import Past
from holdfast_server.model import (
    AdjustStock,
    Caller,
    Extend,
    Level,
    Line,
    PutItem,
    Reserve,
    State,
)
from tests.contract.histories import SKUS, Batch, History, batch, opening
from tests.hosts import START_MS
from tests.recorded import Recorded, recorded

COUNTERS = ("on_hand", "held", "committed", "backordered")
P = Caller("p")
pytestmark = pytest.mark.parametrize("seed", range(3))
SIGNS = {Term.ON_HAND: 1, Term.HELD: -1, Term.COMMITTED: -1, Term.SAFETY_STOCK: -1}


def history(seed: int) -> History:
    dice = Random(seed)
    batches = [batch([dice.getrandbits(24) for _ in range(8)]) for _ in range(10)]
    return History(dice.choice((0, 9)), 900_000, [Batch(0, opening(units=8)), *batches])


@asynccontextmanager
async def archived(cell: Recorded, folder: Path) -> AsyncIterator[Archive]:
    """Open an archive of all that a cell has recorded."""
    async with Archive.open(f"sqlite+aiosqlite:///{folder / 'archive.db'}") as archive:
        await archive.apply(cell.tables.bodies)
        yield archive


def answers(told: History) -> tuple[Recorded, dict[tuple[int, str], Level]]:
    """Decide a history; return its cell, and every level that was answered, by its sequence."""
    cell = Recorded.new(hold_budget=told.hold_budget)
    answered: dict[tuple[int, str], Level] = {}
    now_ms = START_MS
    for step in told.batches:
        now_ms += step.step_ms
        for outcome in cell.kernel.execute(step.operations, now_ms=now_ms).outcomes:
            assert not isinstance(outcome, Exception)
            for level in filter(None, outcome.levels):
                answered[outcome.sequence, level.sku] = level
    return cell, answered


async def test_levels_after_every_entry_are_those_that_were_answered(
    seed: int, tmp_path: Path
) -> None:
    cell, answered = answers(history(seed))
    moved: dict[str, list[int]] = defaultdict(lambda: [0] * len(COUNTERS))
    compared = 0
    async with archived(cell, tmp_path) as archive:
        for entry in await archive.entries(1, limit=1_000):
            for move in entry.movements:
                moves = zip(moved[move.sku], move[2:], strict=True)
                moved[move.sku] = [a + b for a, b in moves]
            moment = await at_sequence(archive, [*SKUS, "missing"], entry.sequence)
            assert moment.time_ms == entry.time_ms
            assert moment.levels.pop("missing") is None
            for sku, level in moment.levels.items():
                counters = [getattr(level, name, 0) for name in COUNTERS]
                assert counters == moved[sku]
                if (entry.sequence, sku) in answered:
                    compared += 1
                    assert level == answered[entry.sequence, sku]
        for sequence in (0, cell.tables.sequence + 1):
            with pytest.raises(ResumeTokenExpired):
                await at_sequence(archive, SKUS, sequence)
    assert compared > 20


async def test_a_level_is_explained_to_the_last_unit_at_every_entry(
    seed: int, tmp_path: Path
) -> None:
    told, sku = recorded(history(seed)), SKUS[seed]
    async with archived(told, tmp_path) as archive:
        entries = await archive.entries(1, limit=1_000)
        for entry in entries:
            level = (await at_sequence(archive, [sku], entry.sequence)).levels[sku]
            if level is None:
                with pytest.raises(UnknownSku):
                    await explain(archive, sku, entry.sequence)
                continue
            found = await explain(archive, sku, entry.sequence)
            assert found.level == level
            units = {term.term: term.units for term in found.terms}
            assert sum(SIGNS[term] * units[term] for term in SIGNS) == level.available
            assert units[Term.OVERSELL_ALLOWANCE] == level.allowance
            for term in found.terms:
                assert term.earlier_units == 0
                assert sum(change.units for change in term.changes) == term.units
                made = [entries[change.sequence - 1] for change in term.changes]
                assert [each.id for each in made] == [change.id for change in term.changes]
            states = {each.id: each.reservation for each in entries[: entry.sequence]}
            for change in next(term for term in found.terms if term.term is Term.HELD).changes:
                reservation = states[change.id]
                assert reservation is not None
                assert reservation.state is State.HELD


async def test_every_batch_is_decided_again_from_the_archive_alone(
    seed: int, tmp_path: Path
) -> None:
    told = recorded(history(seed))
    async with archived(told, tmp_path) as archive:
        for batch in told.batches:
            made = await Past(archive).redecided(batch)
            assert made.events == list(batch.events)
            assert [part for row in made.rows.items() for part in row] == list(batch.rows)


async def test_at_a_time_what_is_due_by_then_has_ended(seed: int, tmp_path: Path) -> None:
    dice = Random(seed)
    cell = Recorded.new()
    kernel, sku = cell.kernel, SKUS[seed]
    kernel.execute([PutItem("r1", P, sku), AdjustStock("r2", P, sku, 500)], now_ms=START_MS)
    ends = [START_MS + 1_000 + dice.randrange(5) for _ in range(150)]
    held = [
        Reserve(f"h{n}", P, (Line(sku, 1),), ends_ms - START_MS) for n, ends_ms in enumerate(ends)
    ]
    kernel.execute(held, now_ms=START_MS)
    kernel.execute([Extend("h7", P, 5_000)], now_ms=START_MS + 500)
    ends[7] = START_MS + 5_500
    before = {**cell.tables.items}
    for step in range(4):  # more than one sweep ends
        kernel.execute([], now_ms=START_MS + 2_000 + step)
    async with archived(cell, tmp_path) as archive:
        for time_ms in (*range(START_MS + 999, START_MS + 1_006), START_MS + 1_999):
            moment = await at_time(archive, [sku], time_ms)
            level = moment.levels[sku]
            assert level is not None
            assert level.held == sum(ends_ms > time_ms for ends_ms in ends)
            assert moment.sequence == 153
            assert level.revision == decode_level(sku, before[sku.encode()]).revision
        for time_ms in (START_MS + 2_003, START_MS + 5_499, START_MS + 5_500):
            level = (await at_time(archive, [sku], time_ms)).levels[sku]
            assert level is not None
            assert level.held == (time_ms < START_MS + 5_500)
        with pytest.raises(ResumeTokenExpired):
            await at_time(archive, [sku], START_MS - 1)
