"""Levels as of any moment, from the archive alone, against what was answered at that moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from holdfast_server.errors import ResumeTokenExpired
from holdfast_server.kernel.records import decode_entries, decode_level
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.moments import at_sequence, at_time
from holdfast_server.model import AdjustStock, Caller, Extend, Level, Line, PutItem, Reserve
from tests.contract.histories import SKUS, Batch, History, batch, opening
from tests.hosts import START_MS
from tests.recorded import Recorded

COUNTERS = ("on_hand", "held", "committed", "backordered")
P = Caller("p")
pytestmark = pytest.mark.parametrize("seed", range(3))


def history(seed: int) -> History:
    dice = Random(seed)
    batches = [batch([dice.getrandbits(24) for _ in range(8)]) for _ in range(14)]
    return History(dice.choice((0, 9)), 900_000, [Batch(0, opening(units=8)), *batches])


@asynccontextmanager
async def archived(cell: Recorded, folder: Path) -> AsyncIterator[Archive]:
    """Open an archive of all that a cell has recorded."""
    async with Archive.open(f"sqlite+aiosqlite:///{folder / 'archive.db'}") as archive:
        await archive.apply(cell.tables.bodies)
        yield archive


async def test_levels_after_every_entry_are_those_that_were_answered(
    seed: int, tmp_path: Path
) -> None:
    told = history(seed)
    cell = Recorded.new(hold_budget=told.hold_budget)
    answered: dict[tuple[int, str], Level] = {}
    now_ms = START_MS
    for step in told.batches:
        now_ms += step.step_ms
        for outcome in cell.kernel.execute(step.operations, now_ms=now_ms).outcomes:
            assert not isinstance(outcome, Exception)
            for level in filter(None, outcome.levels):
                answered[outcome.sequence, level.sku] = level
    moved: dict[str, list[int]] = defaultdict(lambda: [0] * len(COUNTERS))
    compared = 0
    async with archived(cell, tmp_path) as archive:
        for stored in cell.batches:
            for entry in decode_entries([1, *stored]):
                for move in entry.movements:
                    moves = zip(moved[move.sku], move[2:], strict=True)
                    moved[move.sku] = [a + b for a, b in moves]
                moment = await at_sequence(archive, [*SKUS, "missing"], entry.sequence)
                assert moment.time_ms == entry.time_ms
                assert moment.levels["missing"] is None
                for sku in SKUS:
                    level = moment.levels[sku]
                    if level is None:
                        assert sku not in moved
                        continue
                    assert [getattr(level, name) for name in COUNTERS] == moved[sku]
                    if (entry.sequence, sku) in answered:
                        compared += 1
                        assert level == answered[entry.sequence, sku]
        assert compared > 20
        for sequence in (0, cell.tables.sequence + 1):
            with pytest.raises(ResumeTokenExpired):
                await at_sequence(archive, SKUS, sequence)


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
