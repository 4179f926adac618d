"""exactly_one_end: the life of every reservation, replayed against a table of what may follow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from holdfast.v1 import ledger_pb2 as pb
from holdfast.v1 import types_pb2 as types
from holdfast_server.checks.invariants import named
from holdfast_server.checks.verdict import Findings, Verdict

RETENTION_MS_MIN = 1_000

_TABLE = """
    HELD        EXTEND         HELD
    HELD        RELEASE_PART   HELD
    HELD        COMMIT         COMMITTED
    HELD        RELEASE        RELEASED
    HELD        EXPIRE         EXPIRED
    HELD        SUPERSEDE      SUPERSEDED
    EXPIRED     COMMIT_LATE    COMMITTED
    EXPIRED     SUPERSEDE      SUPERSEDED
    RELEASED    SUPERSEDE      SUPERSEDED
    SUPERSEDED  SUPERSEDE      SUPERSEDED
"""
_NEXT = {(row[0], row[1]): row[2] for row in map(str.split, _TABLE.strip().splitlines())}
_RECORDED = {
    "HELD": types.RESERVATION_STATE_HELD,
    "COMMITTED": types.RESERVATION_STATE_COMMITTED,
    "RELEASED": types.RESERVATION_STATE_RELEASED,
    "EXPIRED": types.RESERVATION_STATE_EXPIRED,
}
_KINDS = range(pb.ENTRY_KIND_RESERVE, pb.ENTRY_KIND_SUPERSEDE + 1)


@dataclass(slots=True)
class _Life:
    state: str = ""
    ended_ms: int = 0
    held: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))


def exactly_one_end(
    entries: Iterable[pb.LedgerEntry], *, retention_ms: int = RETENTION_MS_MIN
) -> Verdict:
    """Check that every reservation ends at most once, and gives its units up exactly then.

    An expired one may still be committed late; what has been given back may still be superseded,
    which bars that.  An id may begin a new life `retention_ms` after its end, not sooner.
    """
    findings = Findings("exactly_one_end")
    lives: dict[str, _Life] = defaultdict(_Life)
    for entry in entries:
        if entry.kind in _KINDS:
            findings.looked_at += entry.kind == pb.ENTRY_KIND_RESERVE
            _live_on(findings, lives, entry, retention_ms)
    return findings.verdict()


def _event(entry: pb.LedgerEntry) -> str:
    if entry.kind == pb.ENTRY_KIND_COMMIT and entry.reservation.late:
        return "COMMIT_LATE"
    is_held = entry.reservation.state == types.RESERVATION_STATE_HELD
    if entry.kind == pb.ENTRY_KIND_RELEASE and is_held:
        return "RELEASE_PART"
    return pb.EntryKind.Name(entry.kind).removeprefix("ENTRY_KIND_")


def _live_on(
    findings: Findings, lives: dict[str, _Life], entry: pb.LedgerEntry, retention_ms: int
) -> None:
    life, now_ms, event = lives[entry.id], entry.time.ToMilliseconds(), _event(entry)
    if event == "RESERVE":
        is_forgotten = now_ms >= life.ended_ms + retention_ms
        is_free = not life.state or (life.state != "HELD" and is_forgotten)
        findings.expect(is_free, f"{named(entry)}: it was {life.state} already")
        life = lives[entry.id] = _Life("HELD")
    else:
        after = _NEXT.get((life.state, event))
        findings.expect(after is not None, f"{named(entry)}: it was {life.state or 'unknown'}")
        if life.state == "HELD" or event == "COMMIT_LATE":
            life.ended_ms = now_ms
        life.state = after or life.state
    recorded = _RECORDED.get(life.state)
    agrees = recorded is None or entry.reservation.state == recorded
    findings.expect(agrees, f"{named(entry)}: the record does not say {life.state}")
    _count(findings, life, entry)


def _count(findings: Findings, life: _Life, entry: pb.LedgerEntry) -> None:
    for move in entry.movements:
        life.held[move.sku, move.location] += move.held
    for (sku, _location), units in life.held.items():
        findings.expect(units >= 0, f"{named(entry)}: gave back {-units} more of {sku} than held")
        if life.state != "HELD":
            findings.expect(units <= 0, f"{named(entry)}: ended, and still holds {units} of {sku}")
    if life.state != "HELD":
        life.held.clear()
