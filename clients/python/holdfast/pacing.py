"""How a client heeds the advice it was given: it waits, takes something else, or does not ask.

What the server says of an item, and of itself, is advice.  A client with a pacing policy follows it
before it sends a reserve, and only then: what is sent again after a failure is what was sent first.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Literal, NamedTuple, Protocol, TypeAlias

from holdfast.changes import ServerLoad
from holdfast.errors import OutOfStock
from holdfast.levels import KnownLevel, KnownLevels, LevelView
from holdfast.model import Advice, Line, Lines, RefusedLine, ReserveOptions, StockLevel
from holdfast.requests import lines_of

FRESH_S = 1.0  # so long the level of an answer stands for the item, without a watch
PLANS_MAX = 10_000
LOAD_FACTORS = {ServerLoad.HIGH: 1, ServerLoad.OVERLOADED: 4}
HOPELESS = frozenset({Advice.OFFER_ALTERNATIVE, Advice.BACKORDER, Advice.STOP})
PATIENT = frozenset({Advice.SLOW_DOWN, Advice.STOP})  # what asks to wait `retry_after`

Alternative: TypeAlias = Callable[[str, StockLevel], str | None]


class Attempt(NamedTuple):
    """A reserve before it is first sent, and what is known of the items and of the server.

    `urgent` is what the caller says: somebody waits for the answer.  `min_interval` is what a
    loaded server has suggested, in seconds, 0 where it has not.
    """

    lines: tuple[Line, ...]
    options: ReserveOptions
    urgent: bool
    levels: LevelView
    load: ServerLoad
    min_interval: float = 0.0


class Plan(NamedTuple):
    """The lines to send, and how many seconds from now."""

    lines: tuple[Line, ...]
    delay: float = 0.0


class PacingPolicy(Protocol):
    """Decides how a reserve goes out."""

    def plan(self, attempt: Attempt) -> Plan:
        """Return what to send and when.  Raises a Refused, to send nothing.

        The client waits for no more than half of the call's timeout, which the wait is part of.
        """
        ...


@dataclass(frozen=True)
class Pacing:
    """Follows the server's advice; times in seconds.

    - SLOW_DOWN waits for 50 to 100 % of what is left of the level's `retry_after`, at most
      `delay_max`.  A level that has been known for longer than that no longer delays.
    - OFFER_ALTERNATIVE, STOP, and BACKORDER where the call does not allow that, ask `alternative`
      for another SKU to put in the line's place; None leaves the line as it is.
    - STOP without an alternative waits as SLOW_DOWN does, and with `stop="refuse"` raises
      OutOfStock with `is_local` at once, while the level is surely current: told by a running
      watch, or at most 1 s or its `retry_after` ago.
    - A server under HIGH load makes reserves wait up to `load_delay`, an OVERLOADED one four times
      that, and `urgent` ones not.  Where it has suggested a longer interval, they are spread over
      that, of which `delay_max` is the most.
    """

    delay_max: float = 2.0
    alternative: Alternative | None = None
    stop: Literal["send", "refuse"] = "send"
    load_delay: float = 0.1

    def __post_init__(self) -> None:
        if self.stop not in ("send", "refuse"):
            raise ValueError(f'stop must be "send" or "refuse", not {self.stop!r}')
        for name in ("delay_max", "load_delay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")

    def plan(self, attempt: Attempt) -> Plan:
        """Return what to send and when.  Raises OutOfStock with stop="refuse"."""
        lines = tuple(self._redirected(line, attempt) for line in attempt.lines)
        if self.stop == "refuse":
            _refuse_hopeless(lines, attempt)
        if attempt.urgent:
            return Plan(lines)
        delays = [self._delay_of(attempt.levels.known(line.sku)) for line in lines]
        return Plan(lines, max(self._load_delay(attempt), *delays, 0.0))

    def _redirected(self, line: Line, attempt: Attempt) -> Line:
        known = attempt.levels.known(line.sku)
        if self.alternative is None or known is None or not _is_current(known):
            return line
        advice = known.level.advice
        if advice not in HOPELESS:
            return line
        if advice is Advice.BACKORDER and attempt.options.get("allow_backorder"):
            return line
        other = self.alternative(line.sku, known.level)
        return line if other is None else line._replace(sku=other)

    def _delay_of(self, known: KnownLevel | None) -> float:
        if known is None or known.level.advice not in PATIENT:
            return 0.0
        left = min(known.level.retry_after - known.age, self.delay_max)
        return max(left, 0.0) * random.uniform(0.5, 1)

    def _load_delay(self, attempt: Attempt) -> float:
        factor = LOAD_FACTORS.get(attempt.load, 0)
        if not factor:
            return 0.0
        suggested = min(attempt.min_interval, self.delay_max)
        return random.uniform(0, max(self.load_delay * factor, suggested))


def _is_current(known: KnownLevel) -> bool:
    return known.is_live or known.age <= max(known.level.retry_after, FRESH_S)


def _refuse_hopeless(lines: tuple[Line, ...], attempt: Attempt) -> None:
    """Raise OutOfStock for what the server would surely refuse."""
    stopped = [
        (line, known.level)
        for line in lines
        if (known := attempt.levels.known(line.sku)) is not None
        and known.level.advice is Advice.STOP
        and _is_current(known)
    ]
    enough = len(lines) if attempt.options.get("allow_partial") else 1
    if len(stopped) < enough:
        return
    skus = ", ".join(dict.fromkeys(line.sku for line, _ in stopped))
    error = OutOfStock(f"sold out as far as this client knows, and not sent: {skus}")
    error.is_local = True
    error.lines = tuple(
        RefusedLine(line.sku, line.location, line.quantity, level.available, None)
        for line, level in stopped
    )
    error.levels = tuple({level.sku: level for _, level in stopped}.values())
    error.idempotency_key = attempt.options.get("reservation_id") or ""
    raise error


class Pacer:
    """Asks a client's policy, and remembers its answer for whoever repeats a call with its id."""

    def __init__(self, known: KnownLevels) -> None:
        self._known = known
        # By reservation_id: the lines that were given, and those that were sent.
        self._sent: OrderedDict[str, tuple[tuple[Line, ...], tuple[Line, ...]]] = OrderedDict()
        self._writing = Lock()

    def plan(
        self, policy: PacingPolicy, lines: Lines, options: ReserveOptions, *, urgent: bool
    ) -> Plan:
        """Return how a reserve goes out.  Raises the Refused that keeps it in."""
        given, key = lines_of(lines), options.get("reservation_id") or ""
        before = self._sent.get(key)
        if before is not None and before[0] == given:
            return Plan(before[1])
        known = self._known
        plan = policy.plan(
            Attempt(given, options, urgent, known.view, known.load, known.min_interval)
        )
        if key:
            with self._writing:
                self._sent[key] = (given, plan.lines)
                if len(self._sent) > PLANS_MAX:
                    self._sent.popitem(last=False)
        return plan

    def forget(self, reservation_id: str) -> None:
        """Let the next call with this id be planned anew: a refusal has left it unused."""
        with self._writing:
            self._sent.pop(reservation_id, None)
