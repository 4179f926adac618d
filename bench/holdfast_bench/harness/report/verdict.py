"""What the page says of a run in one word, worst first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast_bench.harness.report import units
from holdfast_bench.harness.report.run import Row, Run

COMPLETED, ABORTED = "completed", "aborted: "
HARNESS_FAULTS = (1, 2)  # exit codes of a run that did not get to its end


@dataclass(frozen=True)
class Headline:
    """The word, what it means, and why."""

    word: str
    tone: str  # good, bad or doubtful
    meaning: str
    reasons: Sequence[str] = ()
    reportable: bool = True


def headline(run: Run) -> Headline:
    """Return the verdict of a run."""
    if broken := run.broken():
        meaning = "The server broke a promise: no figure of this run says anything."
        return Headline(
            "NOT REPORTABLE", "bad", meaning, [_violation(run, b) for b in broken], False
        )
    is_aborted = str(run.result.get("end_reason")).startswith(ABORTED)
    if not is_aborted and not _is_whole(run):
        meaning = "The run did not get to its end: what it measured is not what was planned."
        return Headline("INCOMPLETE", "bad", meaning, _notes(run), False)
    if doubts := run.doubts():
        meaning = (
            "The load generator was the bottleneck: the figures are its own, not the server's."
        )
        return Headline("INVALID", "doubtful", meaning, doubts, False)
    if is_aborted:
        meaning = "A threshold failed, and the run was ended before its time."
        return Headline("FAILED", "bad", meaning, [str(run.result["end_reason"])])
    if missed := run.missed():
        meaning = f"{len(missed)} of {len(run.rows('thresholds'))} thresholds were not met."
        return Headline("FAILED", "bad", meaning, [_miss(one) for one in missed])
    return _passed(run)


def _is_whole(run: Run) -> bool:
    is_completed = run.result.get("end_reason", COMPLETED) == COMPLETED
    return is_completed and run.result.get("exit_code") not in HARNESS_FAULTS


def _passed(run: Run) -> Headline:
    if not run.rows("verdicts"):
        return Headline("UNCHECKED", "doubtful", "No promise of the server was looked at.")
    met, kept = len(run.rows("thresholds")), len(run.rows("verdicts"))
    promises = f"all {kept} promises were kept" if kept > 1 else "the promise was kept"
    thresholds = "there was no threshold to meet" if not met else f"all {met} thresholds were met"
    meaning = f"{thresholds} and {promises}."
    return Headline("PASSED", "good", meaning[0].upper() + meaning[1:])


def _violation(run: Run, name: str) -> str:
    verdict = next((one for one in run.rows("verdicts") if one["name"] == name), {})
    found = [str(one) for one in verdict.get("violations", ())]
    if not found:
        found = [f"{units.count(run.part('units').get('oversold'))} units oversold"]
    more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
    return f"{name}: {found[0]}{more}"


def _miss(threshold: Row) -> str:
    return f"{threshold['expression']}: was {value(threshold)}"


def _notes(run: Run) -> list[str]:
    return [str(note) for note in (run.result.get("end_reason"), *run.notes) if note]


def value(threshold: Row) -> str:
    """Return what a threshold was held against, in the kind of unit that its limit has."""
    found = threshold.get("value")
    if isinstance(found, bool) or not isinstance(found, int | float):
        return units.ABSENT if found is None else str(found)
    unit = re.search(r"\d\s*(ns|us|ms|s|%)\s*$", str(threshold["expression"]))
    if unit is None:
        return units.number(found)
    if unit[1] == "%":
        return units.share(found, 2)
    return f"{units.number(units.milliseconds(found))} ms"
