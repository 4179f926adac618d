"""What a comparison says, as cells: for the console and for the page alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table as ConsoleTable
from rich.text import Text

from holdfast_bench.harness.compare import ALPHA, RUNS_MIN, Comparison, Difference, Verdict
from holdfast_bench.harness.report import overlay, units
from holdfast_bench.harness.report.tables import Table
from holdfast_bench.harness.significance import CONFIDENCE

COLUMNS = ("figure", "#A", "#B", "#difference", f"#{CONFIDENCE:.0%} interval", "#p", "verdict")
STYLES = {Verdict.BETTER: "green", Verdict.WORSE: "bold red", Verdict.TOO_FEW: "yellow"}
MARKS = {Verdict.BETTER: "better", Verdict.WORSE: "bad"}
TOO_FEW = (
    f"With fewer than {RUNS_MIN} usable runs a side no p-value can be below {ALPHA}: even 3 runs "
    "that are all slower than 3 others come about by chance one time in ten."
)


def rows(differences: Sequence[Difference]) -> list[tuple[str, ...]]:
    """Return one row of cells for each figure that both sides have."""
    return [_row(one) for one in differences if one.a and one.b]


def _row(one: Difference) -> tuple[str, ...]:
    judged = one.verdict is not Verdict.TOO_FEW
    return (
        f"{one.yardstick.name}, {one.yardstick.unit}",
        units.number(median(one.a)),
        units.number(median(one.b)),
        _percent(one.change),
        _interval(one) if judged else units.ABSENT,
        f"{one.p:.4f}" if judged else units.ABSENT,
        str(one.verdict),
    )


def _percent(share: float | None) -> str:
    return units.ABSENT if share is None or share == inf else f"{100 * share:+.1f} %"


def _interval(one: Difference) -> str:
    """Return the bounds as shares of A; of a figure that A has not, as they are."""
    before = median(one.a)
    if not before:
        return f"{one.low:+.3g} .. {one.high:+.3g}"
    return f"{100 * one.low / before:+.1f} .. {100 * one.high / before:+.1f} %"


def notes(comparison: Comparison) -> list[str]:
    """Return what a reader of the verdicts has to know."""
    found = [f"PROMISE BROKEN, not reportable: {run}" for run in comparison.broken]
    found += [f"left out: {run}" for run in comparison.left_out]
    found += comparison.warnings
    if any(one.verdict is Verdict.TOO_FEW for one in comparison.differences):
        found.append(TOO_FEW)
    if comparison.fail_over is not None:
        allowed = units.share(comparison.fail_over)
        names = ", ".join(one.yardstick.name for one in comparison.failures)
        found.append(f"worse by more than {allowed}: {names or 'nothing'}")
    return found


def show(comparison: Comparison, console: Console) -> None:
    """Print the verdicts."""
    table = ConsoleTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in COLUMNS:
        table.add_column(name.lstrip("#"), justify="right" if name.startswith("#") else "left")
    for one in comparison.differences:
        for row in rows([one]):
            style = STYLES.get(one.verdict, "")
            table.add_row(*row[:-1], Text(row[-1], style=style))
    console.print(
        f"A: {len(comparison.a)} runs, B: {len(comparison.b)} runs; medians", markup=False
    )
    console.print(table, markup=False)
    for note in notes(comparison):
        console.print(note, markup=False, soft_wrap=True)


def write_overlay(comparison: Comparison, names: tuple[str, str], out: Path) -> Path:
    """Write the page that lays the runs of both sides over one another, verdicts first."""
    sides: Mapping[str, Sequence[Path]] = {
        f"{letter} {name}": [run.folder for run in runs]
        for letter, name, runs in zip("AB", names, (comparison.a, comparison.b), strict=True)
    }
    shown = [one for one in comparison.differences if one.a and one.b]
    marks = [MARKS.get(one.verdict, "") for one in shown]
    verdicts = Table("B against A, medians of the runs", COLUMNS, rows(shown), marks)
    told = Table("Notes", ("note",), [(note,) for note in notes(comparison)])
    return overlay(sides, out, title=" / ".join(names), tables=[verdicts, told])
