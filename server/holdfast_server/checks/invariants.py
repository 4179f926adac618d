"""The promises, each as one check over the ledger from its first entry.

    never_oversold           a grant fits what was there, or the item's oversell allowance
    exactly_one_end          a reservation ends at most once, and its units go with it
    ledger_gapless           sequences follow each other, epoch and time never go back
    replay_equals_state      the movements add up to the levels that are served
    acknowledged_found       what a client was told is in the ledger as it was told
    error_changed_nothing    a call that answered an error left no trace

Checks read what any auditor can read, the messages of LedgerService and InventoryService, and
share nothing with the code that decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from holdfast.v1 import ledger_pb2 as pb
from holdfast.v1.inventory_pb2 import ItemEntry
from holdfast_server.checks.replay import Replay
from holdfast_server.checks.verdict import Findings, Verdict

Entries = Iterable[pb.LedgerEntry]

_GRANTS = frozenset({pb.ENTRY_KIND_RESERVE, pb.ENTRY_KIND_COMMIT})


def named(entry: pb.LedgerEntry) -> str:
    """Return how a violation calls an entry, such as `#17 RESERVE cart-9`."""
    kind = pb.EntryKind.Name(entry.kind).removeprefix("ENTRY_KIND_")
    return f"#{entry.sequence} {kind} {entry.id}"


def never_oversold(entries: Entries) -> Verdict:
    """Check that no entry granted units that were not there.

    After each grant the item's claims fit on_hand less safety_stock, except for units marked
    backordered, and with those the oversell allowance in force at that moment.  A recount below
    the claims is a deficit, not an oversell: it grants nothing.
    """
    findings, replay = Findings("never_oversold"), Replay()
    for entry in entries:
        replay.apply(entry)
        if entry.kind not in _GRANTS:
            continue
        for (sku, location), (units, beyond) in _granted(entry).items():
            findings.looked_at += 1
            where = f"{named(entry)}: {sku}" + (f" at {location}" if location else "")
            item = replay.items[sku]
            over = item.overclaimed
            if location:
                place = replay.places[sku, location]
                over = place.claimed - place.on_hand
            elif beyond:
                fits = item.allowance > 0 and over <= item.allowance
                words = f"{over} units beyond stock, allowance {item.allowance}"
                findings.expect(fits, f"{where}: {words}")
            if units > beyond:
                findings.expect(over <= beyond, f"{where}: {over} too many, {beyond} backordered")
    return findings.verdict()


def _granted(entry: pb.LedgerEntry) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the units newly claimed, and how many of them beyond stock.

    By item under the location '', and again by each location that the lines name.
    """
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for move in entry.movements:
        for location in {"", move.location}:
            units = sums[move.sku, location]
            units[0] += move.held + move.committed
            units[1] += move.backordered
    return {key: (units, beyond) for key, (units, beyond) in sums.items() if units > 0}


def ledger_gapless(entries: Entries, *, head: int | None = None) -> Verdict:
    """Check that entries run 1, 2, 3 ... to `head`, and that epoch and time never go back."""
    findings = Findings("ledger_gapless")
    expected, epoch, time_ns = 1, 0, 0
    for entry in entries:
        findings.looked_at += 1
        findings.expect(entry.sequence == expected, f"{named(entry)}: #{expected} should be here")
        findings.expect(entry.epoch >= epoch, f"{named(entry)}: epoch back to {entry.epoch}")
        now_ns = entry.time.ToNanoseconds()
        findings.expect(now_ns >= time_ns, f"{named(entry)}: time back by {time_ns - now_ns} ns")
        expected, epoch, time_ns = entry.sequence + 1, entry.epoch, now_ns
    if head is not None:
        last = expected - 1
        findings.expect(last >= head, f"the head is #{head}, the last entry read #{last}")
    return findings.verdict()


def replay_equals_state(entries: Entries, items: Iterable[ItemEntry], *, head: int) -> Verdict:
    """Check that the movements add up to the level of every item.

    A level says by its revision as of which entry it is exact, so it is compared with the replay
    at that very entry, and the server may go on meanwhile.  Read in this order: `head`, then the
    items, then the entries up to the new head.
    """
    findings, replay = Findings("replay_equals_state"), Replay()
    revisions: dict[str, int] = {}
    due: dict[int, list[ItemEntry]] = defaultdict(list)
    for item in items:
        revisions[item.level.sku] = item.level.revision
        due[item.level.revision].append(item)
    for entry in entries:
        replay.apply(entry)
        for item in due.pop(entry.sequence, ()):
            findings.looked_at += 1
            _compare(findings, replay, item)
        if entry.sequence <= head:
            for sku in {move.sku for move in entry.movements}:
                seen = revisions.get(sku, 0)
                lost = f"{named(entry)} moved {sku}, whose state ends at #{seen}"
                findings.expect(seen >= entry.sequence, lost)
    for revision, waiting in due.items():
        names = ", ".join(item.level.sku for item in waiting)
        findings.expect(False, f"no entry #{revision}, the revision of {names}")
    return findings.verdict()


def _compare(findings: Findings, replay: Replay, item: ItemEntry) -> None:
    level = item.level
    told = replay.items.get(level.sku)
    for name in ("on_hand", "held", "committed", "safety_stock"):
        replayed, served = getattr(told, name, 0), getattr(level, name)
        words = f"{level.sku} at #{level.revision}: {name} {served}, by the ledger {replayed}"
        findings.expect(served == replayed, words)
    deficit = told.deficit if told else 0
    words = f"{level.sku} at #{level.revision}: deficit {item.deficit}, by the ledger {deficit}"
    findings.expect(item.deficit == deficit, words)


class Acknowledged(NamedTuple):
    """An operation that a client was told has taken effect.

    `sequence` is that of its entry: of the reservation it answered, or of the answer itself for
    an operation on an item.  `lines` are (SKU, units) as answered; empty compares none.
    """

    kind: int
    id: str
    sequence: int
    lines: tuple[tuple[str, int], ...] = ()


def acknowledged_found(entries: Entries, acknowledged: Iterable[Acknowledged]) -> Verdict:
    """Check that every acknowledged operation is in the ledger, where and as it was told."""
    findings = Findings("acknowledged_found")
    wanted: dict[int, list[Acknowledged]] = defaultdict(list)
    for told in acknowledged:
        findings.looked_at += 1
        wanted[told.sequence].append(told)
    for entry in entries:
        for told in wanted.pop(entry.sequence, ()):
            same = entry.kind == told.kind and entry.id == told.id
            findings.expect(same, f"{_told(told)} was told, {named(entry)} is there")
            if same and told.lines:
                lines = sorted((line.sku, line.quantity) for line in entry.reservation.lines)
                words = f"{_told(told)}: {sorted(told.lines)} was told, {lines} is there"
                findings.expect(lines == sorted(told.lines), words)
    for lost in wanted.values():
        for told in lost:
            findings.expect(False, f"{_told(told)} was told, nothing is there")
    return findings.verdict()


def _told(told: Acknowledged) -> str:
    return named(pb.LedgerEntry(sequence=told.sequence, kind=told.kind, id=told.id))  # type: ignore[arg-type]  # enums are numbers


class Digest(NamedTuple):
    """Everything an operation could have changed: the end of the ledger and every level."""

    sequence: int
    levels: Mapping[str, tuple[int, ...]]


def digest(items: Iterable[ItemEntry], *, head: int) -> Digest:
    """Return the state as something to compare; times and advice, which pass by, stay out."""
    return Digest(
        head,
        {
            item.level.sku: (
                item.level.on_hand,
                item.level.held,
                item.level.committed,
                item.level.safety_stock,
                item.level.oversell_left,
                item.level.revision,
                item.deficit,
            )
            for item in items
        },
    )


def error_changed_nothing(before: Digest, after: Digest) -> Verdict:
    """Check that nothing changed between two digests taken around calls that failed.

    No hold may come due in between: an expiry is a change of its own.
    """
    findings = Findings("error_changed_nothing")
    grew = f"the ledger went from #{before.sequence} to #{after.sequence}"
    findings.expect(before.sequence == after.sequence, grew)
    for sku in sorted(before.levels.keys() | after.levels.keys()):
        findings.looked_at += 1
        old, new = before.levels.get(sku), after.levels.get(sku)
        findings.expect(old == new, f"{sku} went from {old} to {new}")
    return findings.verdict()
