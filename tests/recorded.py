"""Histories as the store keeps them: batches decided in this process, with their stream bodies."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgpack

from holdfast_server.kernel.inprocess import Changes, KernelInProcess, Tables
from holdfast_server.ledger.leaf import StoredBatch, read_batch
from tests.contract.histories import History
from tests.hosts import START_MS


@dataclass
class RecordedTables(Tables):
    """Tables that keep the body of each batch too."""

    bodies: list[bytes] = field(default_factory=list)

    def write(self, changes: Changes, now_ms: int) -> None:
        """Write what a batch changed, and its body."""
        body = [1, self.epoch, now_ms, self.sequence + 1, changes.events, changes.rows]
        self.bodies.append(msgpack.packb(body))
        super().write(changes, now_ms)


@dataclass
class Recorded:
    """A cell in this process whose ledger is kept as the store's stream keeps it."""

    kernel: KernelInProcess

    @classmethod
    def new(cls, *, hold_budget: int = 0, retention_ms: int = 900_000) -> Recorded:
        """Return an empty cell."""
        tables = RecordedTables()
        return cls(KernelInProcess(tables, hold_budget=hold_budget, retention_ms=retention_ms))

    @property
    def tables(self) -> RecordedTables:
        """Return what the cell has written."""
        assert isinstance(self.kernel.tables, RecordedTables)
        return self.kernel.tables

    @property
    def batches(self) -> list[StoredBatch]:
        """Return the batches of the ledger."""
        return [read_batch(body) for body in self.tables.bodies]


def recorded(history: History) -> Recorded:
    """Decide a history, and return the cell it leaves."""
    cell = Recorded.new(hold_budget=history.hold_budget, retention_ms=history.retention_ms)
    now_ms = START_MS
    for batch in history.batches:
        now_ms += batch.step_ms
        cell.kernel.execute(batch.operations, now_ms=now_ms)
    return cell
