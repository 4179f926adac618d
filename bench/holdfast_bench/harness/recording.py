"""What a generator saw, kept small: `Recorder` in each process, `merge` of all of them.

    intended    the planned moment of a call
    sent        when it left                lag = sent - intended: the generator's own fault,
                                            less the time it was held back by the server
    answered    when its answer came        service time = answered - sent
                                            response time = answered - intended

Only calls of the steady phase enter the histograms and the counts of an RPC; every call is in
the row of the second it was answered in.  Merging is lossless: the parts of N processes make what
one process would have recorded.  `record` takes 3 us on
a core of a shared machine; closing a second, once a second, half a millisecond.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from math import floor
from typing import Any

from holdfast_bench.harness.histogram import Histogram
from holdfast_bench.harness.tallies import ByRpc, Calls, Second, Sessions, by_rpc, total

CONNECT, WARM_UP, STEADY, DRAIN = PHASES = ("connect", "warm_up", "steady", "drain")
VERSION = 1  # of what `encode` returns
OPEN_SECONDS = 3  # rows kept open for answers that come in out of order


class Outcome(StrEnum):
    """How a call ended.  A refusal is an answer: sold out is not an error."""

    OK = "ok"
    SOLD_OUT = "sold_out"
    REFUSED = "refused"  # every other refusal by the rules of stock and holds
    THROTTLED = "throttled"  # the caller's own quota
    SHED = "shed"  # the server has too much to do: OVERLOADED, DRAINING
    DEADLINE = "deadline"
    ERROR = "error"


class Recorder:
    """Records the calls and sessions of one process.  `epoch` is the common start of the run.

    All times are of `time.perf_counter`, which processes of one machine share; a second is
    negative before the epoch, while connections are made.
    """

    def __init__(self, epoch: float) -> None:
        self.epoch = epoch
        self._open: dict[int, Second] = {}
        self._closed: list[dict[str, Any]] = []
        self._service: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._lag = Histogram()

    def record(  # noqa: PLR0913, PLR0917  # the hot path: an object a call would cost as much
        self,
        rpc: str,
        phase: str,
        intended: float,
        sent: float,
        answered: float,
        outcome: Outcome,
        reason: str = "",
        held_s: float = 0.0,
    ) -> None:
        """Count one call.  `phase` is that of its intended time, `reason` its ErrorInfo's.

        `held_s` is how long a frame in flight kept it back: that is no fault of the generator.
        """
        number = floor(answered - self.epoch)
        second = self._open.get(number) or self._opened(number)
        if phase == STEADY:
            calls = second.measured[rpc]
            self._service[rpc].add(answered - sent)
            self._lag.add(sent - held_s - intended)
        else:
            calls = second.unmeasured[rpc]
        calls.response.add(answered - intended)
        calls.outcomes[outcome] = calls.outcomes.get(outcome, 0) + 1
        if reason:
            calls.reasons[reason] = calls.reasons.get(reason, 0) + 1

    def session_planned(self, at: float) -> None:
        """Count a start that the plan holds for this moment."""
        self._at(at).sessions.planned += 1

    def session_started(self, at: float) -> None:
        """Count a session that began."""
        self._at(at).sessions.started += 1

    def session_dropped(self, at: float) -> None:
        """Count a planned session that could not begin: too many were alive."""
        self._at(at).sessions.dropped += 1

    def session_finished(self, at: float) -> None:
        """Count a session that reached its end, whatever the end."""
        self._at(at).sessions.finished += 1

    def encode(self) -> dict[str, Any]:
        """Return everything recorded, in a form for JSON; recording may go on."""
        for number in sorted(self._open):
            self._close(number)
        return {
            "version": VERSION,
            "service": {rpc: histogram.packed() for rpc, histogram in self._service.items()},
            "lag": self._lag.packed(),
            "seconds": list(self._closed),
        }

    def _at(self, at: float) -> Second:
        number = floor(at - self.epoch)
        return self._open.get(number) or self._opened(number)

    def _opened(self, number: int) -> Second:
        """Return a new row, and close the oldest when enough are open."""
        if len(self._open) >= OPEN_SECONDS:
            self._close(min(self._open))
        self._open[number] = Second()
        return self._open[number]

    def _close(self, number: int) -> None:
        self._closed.append(self._open.pop(number).packed(number))


@dataclass
class Recorded:
    """What all processes recorded: totals of the steady phase by RPC, and every second."""

    rpcs: ByRpc = field(default_factory=by_rpc)
    seconds: dict[int, Second] = field(default_factory=dict)
    lag: Histogram = field(default_factory=Histogram)

    @property
    def steady(self) -> Calls:
        """Calls of the steady phase, of all RPCs."""
        return total(self.rpcs.values())

    @property
    def count(self) -> int:
        """How many calls there were in the whole run."""
        rows = (row for each in self.seconds.values() for row in (each.measured, each.unmeasured))
        return sum(calls.count for row in rows for calls in row.values())

    @property
    def sessions(self) -> Sessions:
        """Sessions of the whole run."""
        total = Sessions()
        for second in self.seconds.values():
            total.merge(second.sessions)
        return total

    @property
    def alive_max(self) -> int:
        """Most sessions alive at the end of a second: exact for one process and for many."""
        changes = (
            self.seconds[number].sessions.started - self.seconds[number].sessions.finished
            for number in sorted(self.seconds)
        )
        return max(accumulate(changes), default=0)


def merge(*parts: Mapping[str, Any]) -> Recorded:
    """Return what the parts that `Recorder.encode` made amount to, in any order."""
    recorded = Recorded()
    for part in parts:
        if part["version"] != VERSION:
            raise ValueError(f"a recording of version {part['version']}, not {VERSION}")
        recorded.lag.merge(Histogram.unpacked(part["lag"]))
        for rpc, packed in part["service"].items():
            recorded.rpcs[rpc].service.merge(Histogram.unpacked(packed))
        for packed in part["seconds"]:
            second = Second.unpacked(packed)
            recorded.seconds.setdefault(packed["second"], Second()).merge(second)
            for rpc, calls in second.measured.items():
                recorded.rpcs[rpc].merge(calls)
    return recorded
