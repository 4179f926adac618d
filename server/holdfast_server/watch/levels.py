"""The newest level of every item, in the order of their changes.

Whoever has seen everything up to a mark finds what changed since by walking back from the newest
change: no queue to overflow, nothing kept for a reader but the mark.  A mark is a ledger sequence
and a count of the signals that have eased since without an entry; so the sequence of any resume
token is a mark too, and no token of this history is ever too old.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from holdfast_server.model import ItemRow, LedgerBatch, Level
from holdfast_server.pressure import is_passing, pressure_of

Read = Callable[[str, bytes], Level]
"""(SKU, row) -> level."""
Encode = Callable[[Level, int], bytes]
"""(level, now in ms) -> the level as it is sent."""

EASED_BITS = 20
EASED_MAX = (1 << EASED_BITS) - 1


def mark_of(sequence: int) -> int:
    """Return the mark of a ledger sequence."""
    return sequence << EASED_BITS


class Slot:
    """One item: its row, when it changed, and its level as it is sent, made once for all."""

    __slots__ = ("as_of_ms", "changes", "encoded", "mark", "raw", "sku", "watchers")

    def __init__(self, sku: str) -> None:
        self.sku = sku
        self.raw = b""  # an item that does not exist
        self.mark = 0
        self.changes = 0
        self.as_of_ms = 0
        self.encoded = b""
        self.watchers: set[Any] = set()


class Levels:
    """All items of a cell.  Marks and generation tell a reader where it stands."""

    def __init__(self, read: Read, encode: Encode) -> None:
        self._read = read
        self._encode = encode
        self._by_change: OrderedDict[bytes, Slot] = OrderedDict()
        self._everything: tuple[Slot, ...] | None = None
        self._passing: set[Slot] = set()
        self._awaited: dict[bytes, Slot] = {}
        self.mark = 0
        self.changes = 0
        self.epoch = 0
        self.generation = 0
        self.is_ready = False

    def __len__(self) -> int:
        return len(self._by_change)

    @property
    def sequence(self) -> int:
        """Return the ledger sequence that the levels are of."""
        return self.mark >> EASED_BITS

    def slot(self, sku: str) -> Slot:
        """Return the slot of an item, which may not exist yet."""
        key = sku.encode()
        found = self._by_change.get(key) or self._awaited.get(key)
        if found is None:
            found = self._awaited[key] = Slot(sku)
        return found

    def forget(self, slot: Slot) -> None:
        """Drop the slot of an item that does not exist and that nobody waits for any more."""
        if not slot.raw and not slot.watchers:
            self._awaited.pop(slot.sku.encode(), None)

    def exists(self, sku: str) -> bool:
        """Tell whether there is such an item."""
        return sku.encode() in self._by_change

    @property
    def everything(self) -> Sequence[Slot]:
        """Return all items, as one sequence that all who read it share."""
        if self._everything is None:
            self._everything = tuple(self._by_change.values())
        return self._everything

    def since(self, mark: int, among: Collection[str] | None = None) -> list[Slot]:
        """Return what changed after a mark, the newest last, of all items or of some."""
        found = []
        for slot in reversed(self._by_change.values()):
            if slot.mark <= mark:
                break
            if among is None or slot.sku in among:
                found.append(slot)
        found.reverse()
        return found

    # ---- Changes ----

    def restart(self) -> None:
        """Forget everything: what comes is another history."""
        self.generation += 1
        for slot in self._by_change.values():
            if slot.watchers:
                slot.raw, slot.mark, slot.encoded = b"", 0, b""
                self._awaited[slot.sku.encode()] = slot
        self._by_change.clear()
        self._everything = None
        self._passing.clear()
        self.mark = 0

    def load(self, rows: Iterable[ItemRow], now_ms: int) -> None:
        """Take items as they were read; `order` comes after the last of them."""
        for key, raw in rows:
            sku = key.decode()
            mark = mark_of(self._read(sku, raw).revision)
            slot = self._by_change.get(key) or self._add(key)
            if slot.mark < mark:
                self._put(slot, raw, mark, now_ms)

    def order(self) -> None:
        """Put all items into the order of their changes, which `load` does not keep."""
        ordered = sorted(self._by_change.items(), key=lambda entry: entry[1].mark)
        self._by_change = OrderedDict(ordered)

    def apply(self, batch: LedgerBatch) -> list[Slot]:
        """Take what a batch did; return the items that changed.

        The batch's last sequence marks them all: nobody stands within a batch.
        """
        by_change, changed = self._by_change, []
        mark = mark_of(batch.last)
        for key, raw in batch.rows:
            slot = by_change.get(key) or self._add(key)
            if slot.mark < mark:  # else it was read when that had happened already
                self._put(slot, raw, mark, batch.now_ms)
                by_change.move_to_end(key)
                changed.append(slot)
        self.reach(batch.last)
        return changed

    def reach(self, sequence: int) -> None:
        """Note that the levels are complete up to a sequence."""
        self.mark = max(self.mark, mark_of(sequence))

    def ease(self, now_ms: int) -> list[Slot]:
        """Let the signals fall that pass with time; return the items whose signal did."""
        eased = []
        for slot in tuple(self._passing):
            if self.mark & EASED_MAX == EASED_MAX:
                break  # a million since the last entry: the next entry makes room
            level = self._read(slot.sku, slot.raw)
            if not is_passing(level, now_ms):
                self._passing.discard(slot)
            if pressure_of(level, now_ms) != pressure_of(level, slot.as_of_ms):
                self.mark += 1
                slot.mark, slot.as_of_ms, slot.encoded = self.mark, now_ms, b""
                self._by_change.move_to_end(slot.sku.encode())
                self._count(slot)
                eased.append(slot)
        return eased

    def level_of(self, slot: Slot) -> bytes:
        """Return the level of an item as it is sent."""
        if not slot.encoded:
            level = self._read(slot.sku, slot.raw)
            slot.encoded = self._encode(level, slot.as_of_ms)
            if level.demand and is_passing(level, slot.as_of_ms):
                self._passing.add(slot)
        return slot.encoded

    def _add(self, key: bytes) -> Slot:
        """Return the slot of an item that is new here."""
        slot = self._awaited.pop(key) if key in self._awaited else Slot(key.decode())
        self._by_change[key] = slot
        self._everything = None
        return slot

    def _put(self, slot: Slot, raw: bytes, mark: int, now_ms: int) -> None:
        slot.raw, slot.mark, slot.as_of_ms = raw, mark, now_ms
        if slot.encoded:
            slot.encoded = b""
            self._passing.discard(slot)
        self._count(slot)

    def _count(self, slot: Slot) -> None:
        slot.changes += 1
        self.changes += 1
