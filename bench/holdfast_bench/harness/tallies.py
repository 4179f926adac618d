"""Counts of calls and sessions: in one second, or in a whole run; added up without loss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from holdfast_bench.harness.histogram import Histogram


@dataclass
class Calls:
    """Calls of one RPC, in one second or in all: how many, how they ended, how long they took."""

    response: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)  # only in a total
    outcomes: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many calls there were, whatever their outcome."""
        return self.response.count

    def merge(self, other: Calls) -> None:
        """Count everything that the other counted."""
        self.response.merge(other.response)
        self.service.merge(other.service)
        add_counts(self.outcomes, other.outcomes)
        add_counts(self.reasons, other.reasons)

    def packed(self) -> dict[str, Any]:
        """Return everything but service times in a form for JSON."""
        return {
            "outcomes": {str(outcome): count for outcome, count in self.outcomes.items()},
            "reasons": dict(self.reasons),
            "response": self.response.packed(),
        }

    @classmethod
    def unpacked(cls, packed: Mapping[str, Any]) -> Calls:
        """Return what was packed."""
        response = Histogram.unpacked(packed["response"])
        return cls(response, outcomes=packed["outcomes"], reasons=packed["reasons"])


def total(several: Iterable[Calls]) -> Calls:
    """Return what several counted together."""
    every = Calls()
    for calls in several:
        every.merge(calls)
    return every


ByRpc = defaultdict[str, Calls]


def by_rpc() -> ByRpc:
    """Return no calls of any RPC yet."""
    return defaultdict(Calls)


@dataclass
class Sessions:
    """Sessions planned, started, dropped and finished, in one second or in all."""

    planned: int = 0
    started: int = 0
    dropped: int = 0
    finished: int = 0

    def merge(self, other: Sessions) -> None:
        """Count everything that the other counted."""
        self.planned += other.planned
        self.started += other.started
        self.dropped += other.dropped
        self.finished += other.finished


@dataclass
class Second:
    """One second, counted from the epoch: its sessions, and the calls answered in it by RPC."""

    sessions: Sessions = field(default_factory=Sessions)
    measured: ByRpc = field(default_factory=by_rpc)
    unmeasured: ByRpc = field(default_factory=by_rpc)

    def merge(self, other: Second) -> None:
        """Count everything that the other counted."""
        self.sessions.merge(other.sessions)
        for mine, more in ((self.measured, other.measured), (self.unmeasured, other.unmeasured)):
            for rpc, calls in more.items():
                mine[rpc].merge(calls)

    def packed(self, number: int) -> dict[str, Any]:
        """Return the row of this number in a form for JSON."""
        return {
            "second": number,
            "sessions": asdict(self.sessions),
            "measured": _packed(self.measured),
            "unmeasured": _packed(self.unmeasured),
        }

    @classmethod
    def unpacked(cls, packed: Mapping[str, Any]) -> Second:
        """Return what was packed."""
        second = cls(Sessions(**packed["sessions"]))
        for name, mine in (("measured", second.measured), ("unmeasured", second.unmeasured)):
            mine.update({rpc: Calls.unpacked(calls) for rpc, calls in packed[name].items()})
        return second


def _packed(by_rpc: Mapping[str, Calls]) -> dict[str, Any]:
    return {rpc: calls.packed() for rpc, calls in by_rpc.items()}


def add_counts(total: dict[str, int], more: Mapping[str, int]) -> None:
    """Add counts by name to those of a total."""
    for name, count in more.items():
        total[name] = total.get(name, 0) + count
