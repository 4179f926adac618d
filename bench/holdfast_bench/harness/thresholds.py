"""What is expected of a result: `p99 < 50ms`, `reserve.p99.9 <= 200ms`, `error_rate < 0.1%`.

A figure of `metrics`, a comparison, and a limit: of a duration with ns, us, ms or s, of a share
with % or as a number from 0 to 1.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from holdfast_bench.harness.metrics import (
    DURATION,
    NUMBER,
    SHARE,
    Metric,
    Result,
    named,
)

COMPARISONS = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
UNITS = {
    DURATION: {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9},
    SHARE: {"%": 0.01, "": 1.0},
    NUMBER: {"": 1.0},
}
WANTED = {
    DURATION: "a duration: a number with ns, us, ms or s",
    SHARE: "a share: a number with %, or from 0 to 1",
    NUMBER: "a number without a unit",
}


class ThresholdError(ValueError):
    """An expression that is not a threshold; the message names the place."""


@dataclass(frozen=True)
class Threshold:
    """A figure, a comparison, and a limit in the figure's own unit: ns, share or number."""

    expression: str
    metric: Metric
    comparison: str
    limit: float

    def judge(self, result: Result) -> dict[str, Any]:
        """Return the threshold as result.json has it.  A figure without a value does not hold."""
        value = self.metric.of(result)
        holds = value is not None and COMPARISONS[self.comparison](value, self.limit)
        return {"expression": self.expression, "value": value, "holds": bool(holds)}


def judge(expressions: Iterable[str], result: Result) -> list[dict[str, Any]]:
    """Return each threshold with its value in a result, and whether it holds."""
    return [parse(expression).judge(result) for expression in expressions]


def parse(expression: str) -> Threshold:
    """Return the threshold that an expression states.  Raises ThresholdError."""
    words = _Words(expression)
    name = words.take(r"[a-z][a-z0-9_.]*", "a figure, such as p99 or error_rate")
    metric = named(name.text)
    if metric is None:
        raise words.wrong(f"no figure is called {name.text!r}", name.place)
    comparison = words.take(r"<=|>=|==|!=|<|>", f"one of {' '.join(COMPARISONS)}")
    number = words.take(r"\d+(\.\d+)?", f"{WANTED[metric.kind]}")
    unit = words.take(r"%|[a-z]*", "a unit")
    if unit.text not in UNITS[metric.kind]:
        raise words.wrong(f"{name.text} is compared with {WANTED[metric.kind]}", number.place)
    words.take(r"$", "the end")
    # Rounded: 0.1 * 0.01 is not quite 0.001.
    limit = round(float(number.text) * UNITS[metric.kind][unit.text], 12)
    if metric.kind is SHARE and limit > 1:
        raise words.wrong(f"{name.text} is compared with {WANTED[SHARE]}", number.place)
    return Threshold(expression, metric, comparison.text, limit)


class _Word(NamedTuple):
    text: str
    place: int


class _Words:
    """An expression, read from left to right."""

    def __init__(self, expression: str) -> None:
        self._expression, self._place = expression, 0
        self._skip_spaces()

    def take(self, pattern: str, wanted: str) -> _Word:
        """Return the next word.  Raises ThresholdError, saying what was wanted there."""
        match = re.compile(pattern, re.IGNORECASE).match(self._expression, self._place)
        if match is None:
            raise self.wrong(f"expected {wanted}", self._place)
        self._place = match.end()
        self._skip_spaces()
        return _Word(match[0].lower(), match.start())

    def wrong(self, problem: str, place: int) -> ThresholdError:
        """Return the error of a place."""
        return ThresholdError(f"{self._expression!r}, character {place + 1}: {problem}")

    def _skip_spaces(self) -> None:
        while self._expression[self._place : self._place + 1].isspace():
            self._place += 1
