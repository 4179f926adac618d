"""The text tables beside this file: scenarios of steps, and what each step must answer.

    == a title, which is the name of the test
    step arguments | CODE what it answers
    & step ...     | ...      in the same batch as the step above
    wait 999                  the clock goes on, in ms
    terms budget=10 retention=5000

Lines of a reservation are `SKU:quantity` or `SKU:quantity@location`; `+n` behind a quantity are
the units of it beyond stock.  A refused line is `SKU:asked/available`, with `next=ms` when units
held may come free.  A level is `SKU=on_hand/held/committed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Step(NamedTuple):
    """One line of a table."""

    number: int
    words: list[str]
    expected: str
    joins: bool


class Scenario(NamedTuple):
    """A titled part of a table."""

    table: str
    title: str
    steps: list[Step]

    @property
    def name(self) -> str:
        return f"{self.table}-{self.title.replace(' ', '_')}"


def scenarios() -> list[Scenario]:
    """Return every scenario of every table."""
    folder = Path(__file__).parent
    return [found for path in sorted(folder.glob("*.txt")) for found in _read(path)]


def _read(path: Path) -> Iterator[Scenario]:
    scenario: Scenario | None = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if text.startswith("=="):
            if scenario:
                yield scenario
            scenario = Scenario(path.stem, text[2:].strip(), [])
        elif text:
            assert scenario, f"{path.name}:{number}: a step before any title"
            step, _, expected = text.partition("|")
            words = step.split()
            joins = words[0] == "&"
            scenario.steps.append(Step(number, words[joins:], expected.strip(), joins))
    if scenario:
        yield scenario
