"""Two versions by their repeated runs: what is better, what is worse, and what is only noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from holdfast_bench.harness import significance
from holdfast_bench.harness.report import Run, UnreadableRun, read
from holdfast_bench.harness.report.verdict import headline
from holdfast_bench.harness.yardsticks import YARDSTICKS, Yardstick

ALPHA = 0.05
RUNS_MIN = 4  # a side: of 3 and 3 that do not overlap at all the p-value is 0.1
SEED = 1
FAILED = 99


class Verdict(StrEnum):
    """What became of a figure."""

    BETTER = "better"
    WORSE = "worse"
    NO_CHANGE = "no significant change"
    TOO_FEW = "too few runs"


@dataclass(frozen=True)
class Difference:
    """One figure of both sides; `low` and `high` bound the difference of the medians, B - A."""

    yardstick: Yardstick
    a: Sequence[float]
    b: Sequence[float]
    p: float
    low: float
    high: float
    verdict: Verdict

    @property
    def change(self) -> float | None:
        """How much larger B's median is, as a share of A's; None when a side has none."""
        if not self.a or not self.b:
            return None
        before, after = median(self.a), median(self.b)
        if before == after:
            return 0.0
        return (after - before) / before if before else inf

    def is_worse_by(self, share: float) -> bool:
        """Whether B is significantly worse, and by more than this share of A."""
        return self.verdict is Verdict.WORSE and abs(self.change or 0.0) > share


@dataclass(frozen=True)
class Comparison:
    """What two sides of runs have to say."""

    a: Sequence[Run]
    b: Sequence[Run]
    differences: Sequence[Difference]
    broken: Sequence[str]  # runs whose server broke a promise
    left_out: Sequence[str]  # runs whose figures say nothing of the server
    warnings: Sequence[str]  # why the two sides may not be comparable
    fail_over: float | None

    @property
    def failures(self) -> list[Difference]:
        """The figures that got worse by more than was allowed."""
        share = self.fail_over
        return [] if share is None else [one for one in self.differences if one.is_worse_by(share)]

    @property
    def exit_code(self) -> int:
        """0, or 99 when a promise was broken or a figure got too much worse."""
        return FAILED if self.broken or self.failures else 0


def compare(
    a_dirs: Sequence[Path],
    b_dirs: Sequence[Path],
    fail_over: float | None = None,
    *,
    rpc: str = "",
    seed: int = SEED,
) -> Comparison:
    """Compare the runs of two sides: A is before, B after.

    `fail_over` is a share: 0.1 lets a figure get worse by 10 %.  With `rpc`, rate, latencies and
    outcomes are those of that RPC.  Runs with a generator that was too slow are left out, and so
    are those that did not get to their end, and those of a server that broke a promise.

    Raises UnreadableRun.
    """
    sides = [read(folder) for folder in a_dirs], [read(folder) for folder in b_dirs]
    if not all(sides):
        raise UnreadableRun(f"side {'B' if sides[0] else 'A'} has no run")
    a, b = ([run for run in side if headline(run).reportable] for side in sides)
    every = [*sides[0], *sides[1]]
    return Comparison(
        a,
        b,
        [judge(one, _values(one, a, rpc), _values(one, b, rpc), seed) for one in YARDSTICKS],
        [f"{run.folder}: {', '.join(run.broken())}" for run in every if run.broken()],
        [f"{run.folder}: {word}" for run in every if (word := _why_not(run))],
        list(_warnings(*sides)),
        fail_over,
    )


def _values(yardstick: Yardstick, runs: Sequence[Run], rpc: str) -> list[float]:
    found = (yardstick.read(run, rpc) for run in runs)
    return [value for value in found if value is not None]


def judge(yardstick: Yardstick, a: Sequence[float], b: Sequence[float], seed: int) -> Difference:
    """Return how one figure differs: both the test and the bounds have to say that it does."""
    if min(len(a), len(b)) < RUNS_MIN:
        return Difference(yardstick, a, b, 1.0, -inf, inf, Verdict.TOO_FEW)
    p = significance.p_value(a, b)
    low, high = significance.difference(a, b, seed=seed)
    verdict = Verdict.NO_CHANGE
    if p < ALPHA and not low <= 0 <= high:
        verdict = Verdict.BETTER if (low > 0) is yardstick.more_is_better else Verdict.WORSE
    return Difference(yardstick, a, b, p, low, high, verdict)


def runs_in(folder: Path) -> list[Path]:
    """Return the run directories of a side: the folder itself, or all that are below it."""
    if (folder / "result.json").exists():
        return [folder]
    return sorted(path.parent for path in folder.rglob("result.json"))


def _why_not(run: Run) -> str:
    told = headline(run)
    if run.broken():
        return ""  # told apart: it is not a fault of the run
    return "" if told.reportable else f"{told.word}: {'; '.join(told.reasons) or told.meaning}"


def _warnings(a: Sequence[Run], b: Sequence[Run]) -> Iterator[str]:
    """Yield what differs between the sides besides the version."""
    for title, part in (("options", _options), ("machine", _machine)):
        before, after = ({str(part(run)) for run in side} for side in (a, b))
        if before != after or len(before) > 1:
            names = sorted({name for run in (*a, *b) for name in _apart(part(a[0]), part(run))})
            told = f": {', '.join(names)}" if names else ""
            yield f"the runs differ in more than their version: {title}{told}"


def _options(run: Run) -> Mapping[str, Any]:
    return {name: value for name, value in run.part("options").items() if name != "seed"}


def _machine(run: Run) -> Mapping[str, Any]:
    hardware = run.environment.get("hardware") or {}
    return {name: value for name, value in hardware.items() if name != "load_average"}


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> set[str]:
    return {name for name in {*a, *b} if a.get(name) != b.get(name)}
