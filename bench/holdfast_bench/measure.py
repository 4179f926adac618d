"""Rounds, medians and verdicts: what every benchmark measures with.

Noise on a shared machine drifts over seconds.  So contestants take turns, twice a round and the
second time backwards; a ratio compares two values of one round, and the median of the rounds'
ratios is what counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Measurement = Callable[[], Awaitable[float]]

COLUMNS = ("benchmark", "store", "value", "against", "ratio", "owed", "ok")


@dataclass(frozen=True)
class Plan:
    """How often to measure, and how long a turn is.  Fewer than 5 rounds are shown, not judged."""

    rounds: int = 5
    seconds: float = 0.75

    @property
    def is_judged(self) -> bool:
        """Tell whether there are enough rounds for a verdict."""
        return self.rounds >= 5


@dataclass(frozen=True)
class Series:
    """One value a round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the value in the middle."""
        return median(self.values)

    def over(self, other: Series) -> Series:
        """Return the ratio of each round."""
        return Series(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def text(self, unit: str = "") -> str:
        """Return the median with its unit and, when there are several rounds, the extremes."""
        words = f"{_number(self.median)} {unit}".rstrip()
        if len(self.values) == 1:
            return words
        return f"{words} ({_number(min(self.values))}..{_number(max(self.values))})"


@dataclass(frozen=True)
class Row:
    """A value, and what it was compared with in the same run, and the ratio owed if one is."""

    name: str
    store: str
    unit: str
    value: Series
    against: Series | None = None
    against_name: str = ""
    owed: float | None = None

    @property
    def ratio(self) -> Series | None:
        """Return the value over what it is compared with, round by round."""
        return self.value.over(self.against) if self.against else None

    @property
    def is_met(self) -> bool | None:
        """Tell whether the median ratio is what is owed; None when nothing is."""
        if self.owed is None or self.ratio is None:
            return None
        return self.ratio.median >= self.owed

    def cells(self, *, is_judged: bool) -> tuple[str, ...]:
        """Return the row as texts, one for each of COLUMNS."""
        against = f"{self.against_name}: {self.against.text()}" if self.against else ""
        return (
            self.name,
            self.store,
            self.value.text(self.unit),
            against,
            self.ratio.text() if self.ratio else "",
            "" if self.owed is None else f">= {self.owed:g}",
            _VERDICTS[self.is_met] if is_judged else "",
        )

    def as_json(self) -> dict[str, Any]:
        """Return the row with every round's value."""
        return {
            "name": self.name,
            "store": self.store,
            "unit": self.unit,
            "values": self.value.values,
            "against": {"name": self.against_name, "values": self.against.values}
            if self.against
            else None,
            "ratio": self.ratio.median if self.ratio else None,
            "owed": self.owed,
            "ok": self.is_met,
        }


_VERDICTS = {True: "yes", False: "NO", None: ""}


async def take_turns(contestants: Mapping[str, Measurement], plan: Plan) -> dict[str, Series]:
    """Measure every contestant each round: the mean of a turn there and a turn back."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _round in range(plan.rounds):
        there = {name: await measure() for name, measure in contestants.items()}
        for name, measure in reversed(list(contestants.items())):
            found[name].append((there[name] + await measure()) / 2)
    return {name: Series(tuple(values)) for name, values in found.items()}


def table(rows: Sequence[Row], plan: Plan) -> str:
    """Return the rows as a Markdown table whose columns line up."""
    lines = [COLUMNS, *(row.cells(is_judged=plan.is_judged) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    )


def exit_status(rows: Sequence[Row], plan: Plan) -> int:
    """Return 1 when a ratio that is owed was judged and not met, else 0."""
    return int(plan.is_judged and any(row.is_met is False for row in rows))


def _number(value: float) -> str:
    """Return three significant digits, and no fraction from 100 on."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
