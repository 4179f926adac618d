"""How a call ended, in words that are the same for all transports and all servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.errors import (
    DeadlineExceeded,
    Draining,
    HoldfastError,
    Overloaded,
    ReservationEnded,
    Throttled,
    Unreachable,
)
from holdfast.v1 import types_pb2
from holdfast_bench.harness.recording import Outcome

_OUTCOMES: tuple[tuple[type[HoldfastError], Outcome], ...] = (
    (Throttled, Outcome.THROTTLED),
    (Overloaded, Outcome.SHED),
    (Draining, Outcome.SHED),
    (DeadlineExceeded, Outcome.DEADLINE),
    (ReservationEnded, Outcome.REFUSED),
)
_REFUSAL = "REFUSAL_REASON_"
_OUT_OF_STOCK = types_pb2.REFUSAL_REASON_OUT_OF_STOCK


@dataclass(slots=True)
class Answer:
    """How a call ended; `message` is its response, None where there was none.

    `sent` is when it left, where that was later than the call: a frame that waited for the server
    to answer earlier ones.  0.0: at once.
    """

    outcome: Outcome
    reason: str = ""
    message: Any = None
    sent: float = 0.0


def late() -> Answer:
    """Return how a call ended that had no answer in time."""
    return Answer(Outcome.DEADLINE, "DEADLINE_EXCEEDED")


def answer_of(response: Any) -> Answer:
    """Return what a response means: an answer, or a refusal, which is an answer too."""
    refusal = getattr(response, "refusal", None)
    if refusal is None or not refusal.reason:
        return Answer(Outcome.OK, "", response)
    reason = types_pb2.RefusalReason.Name(refusal.reason).removeprefix(_REFUSAL)
    sold_out = refusal.reason == _OUT_OF_STOCK
    return Answer(Outcome.SOLD_OUT if sold_out else Outcome.REFUSED, reason, response)


def failure_of(error: HoldfastError) -> Answer:
    """Return what an error means; without a reason of the server, its name stands for one."""
    for kind, outcome in _OUTCOMES:
        if isinstance(error, kind):
            return Answer(outcome, error.reason or "DEADLINE_EXCEEDED")
    unreached = "UNREACHABLE" if isinstance(error, Unreachable) else "TRANSPORT_ERROR"
    return Answer(Outcome.ERROR, error.reason or unreached)
