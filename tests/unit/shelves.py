"""Levels and watches by hand: items that are a number, and a ledger that the test writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from holdfast_server.model import ItemRow, LedgerBatch, Level
from holdfast_server.pressure import Pressure, pressure_of
from holdfast_server.watch.levels import Levels, Slot
from holdfast_server.watch.watcher import Pace, Update, UpdateKind, Watcher
from tests.contract.oracle.books import Stock

EPOCH = 7
NOW_MS = 1_700_000_000_000
# What keeps the pressure of 50 units at SCARCE for 8 s from NOW_MS, and at LOW for 24 s.
HOT = 100_000


class Sent(NamedTuple):
    """A level as it was sent."""

    sku: str
    revision: int
    pressure: Pressure


def row(sku: str, revision: int, *, demand: int = 0) -> ItemRow:
    return sku.encode(), f"{revision} {demand}".encode()


def revision_of(row: ItemRow) -> int:
    return int(row[1].split()[0])


def read_row(sku: str, raw: bytes) -> Level:
    """Return the level of a row: 50 units, which sell as fast as its demand was at NOW_MS."""
    revision, demand = map(int, raw.split())
    level = Stock(sku, on_hand=50, revision=revision).level()
    return level._replace(damped=50, cover_ms=0, demand=demand, demand_ms=NOW_MS)


def encode_level(level: Level, now_ms: int) -> bytes:
    return f"{level.sku} {level.revision} {pressure_of(level, now_ms).value}".encode()


def sent(update: Update) -> list[Sent]:
    """Return the levels of a message."""
    return [
        Sent(sku, int(revision), Pressure(int(pressure)))
        for sku, revision, pressure in (level.decode().split() for level in update.levels)
    ]


def empty_levels() -> Levels:
    levels = Levels(read_row, encode_level)
    levels.epoch = EPOCH
    levels.is_ready = True
    return levels


def batch(*rows: ItemRow, last: int = 0, now_ms: int = NOW_MS, first: int = 0) -> LedgerBatch:
    """Return a batch of one row an entry, or of so many entries."""
    last = last or max(map(revision_of, rows))
    first = first or min(map(revision_of, rows), default=last)
    return LedgerBatch(EPOCH, first, last, now_ms, tuple(rows))


def loaded(*rows: ItemRow) -> Levels:
    """Return levels as they are after the items were read."""
    levels = empty_levels()
    levels.load(rows, NOW_MS)
    levels.order()
    levels.reach(max(map(revision_of, rows), default=0))
    return levels


def taken(watcher: Watcher) -> Update:
    """Return the next message, which there must be."""
    update = watcher.take()
    assert update is not None
    return update


def take_all(watcher: Watcher) -> list[Update]:
    """Return all that there is to say now."""
    updates: list[Update] = []
    while (update := watcher.take()) is not None:
        updates.append(update)
    return updates


def begun(levels: Levels, *skus: str, pace: Pace | None = None) -> Watcher:
    """Return a watcher that has had its snapshot."""
    watcher = Watcher(levels, skus, pace=pace or Pace())
    assert take_all(watcher)[-1].kind is UpdateKind.SNAPSHOT
    return watcher


def names(slots: Iterable[Slot]) -> list[str]:
    return [slot.sku for slot in slots]
