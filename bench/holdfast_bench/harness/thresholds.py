"""What is expected of a result: `p99 < 50ms`, `reserve.p99.9 <= 200ms`, `error_rate < 0.1%`."""

from __future__ import annotations


class ThresholdError(ValueError):
    """An expression that is not a threshold; the message names the place."""


def parse(expression: str) -> None:
    """Return the threshold that an expression states.  Raises ThresholdError."""
