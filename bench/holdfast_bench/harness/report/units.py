"""Numbers as a person reads them."""

from __future__ import annotations

from math import floor, log10

NS_PER_MS = 1_000_000
MIB = 1 << 20
MILLION = 1_000_000
ABSENT = "\N{EN DASH}"


def number(value: float | None) -> str:
    """Return a number with three digits that mean something, and no exponent."""
    if value is None:
        return ABSENT
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 3 if abs(value) < 0.1 else 2 if abs(value) < 10 else 1
    return f"{value:,.{digits}f}"


def tick(value: float) -> str:
    """Return a number at an axis: no digit more than it needs."""
    if abs(value) >= MILLION:
        return f"{value / MILLION:,.6g} M"
    return f"{value:,.6f}".rstrip("0").rstrip(".") if value % 1 else f"{value:,.0f}"


def fixed(value: float | None, digits: int = 2) -> str:
    """Return a number of a column, whose points stand below one another."""
    return ABSENT if value is None else f"{value:,.{digits}f}"


def count(value: float | None) -> str:
    """Return a whole number."""
    return ABSENT if value is None else f"{value:,.0f}"


def share(value: float | None, digits: int = 1) -> str:
    """Return a part of one as a percentage."""
    return ABSENT if value is None else f"{100 * value:,.{digits}f} %"


def milliseconds(ns: float | None) -> float | None:
    """Return nanoseconds as milliseconds."""
    return None if ns is None else ns / NS_PER_MS


def percentile(percent: float) -> str:
    """Return a percentile with as many nines as it has, and no rounding to the next."""
    if percent >= 100:
        return "max"
    digits = max(1, floor(-log10(1 - percent / 100) + 1e-9))
    return f"{percent:.{digits}f}".rstrip("0").rstrip(".") + " %"


def duration(seconds: float) -> str:
    """Return a length of time as a person says it."""
    if seconds < 120:
        return f"{tick(round(seconds, 1))} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
