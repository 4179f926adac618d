"""The report of a run: a page and its images, in its directory."""

from __future__ import annotations

from pathlib import Path

from holdfast_bench.harness.report.figures import charts
from holdfast_bench.harness.report.images import draw
from holdfast_bench.harness.report.page import of_run
from holdfast_bench.harness.report.run import read
from holdfast_bench.harness.report.verdict import headline


def write(run_dir: Path) -> Path:
    """Write report.html and charts/*.png into a run directory, and return the page.

    Raises UnreadableRun when the directory holds no result of a version that is known.
    """
    run = read(run_dir)
    page = run_dir / "report.html"
    page.write_text(of_run(run), encoding="utf-8")
    images, verdict = run_dir / "charts", headline(run)
    images.mkdir(exist_ok=True)
    stamp = "" if verdict.reportable else verdict.word
    for chart in charts(run):
        draw(chart, images / f"{chart.key}.png", subtitle=run.name, stamp=stamp)
    return page
