"""What a run looks like: one page to open from a disk, and images for documents.

    __init__ -> page, overlay, images -> figures, header, tables -> drawing -> chart, axes, units
                                                                 -> run -> spectrum

`run` reads what a run left behind, `figures` says what is drawn, `drawing` draws it for a page and
`images` for a document.  Nothing here judges a run: that was done when it was made.
"""

from __future__ import annotations

from holdfast_bench.harness.report.overlay import overlay
from holdfast_bench.harness.report.run import Run, UnreadableRun, read
from holdfast_bench.harness.report.writing import write

__all__ = ["Run", "UnreadableRun", "overlay", "read", "write"]
