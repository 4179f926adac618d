"""The files of a run are complete, readable by HdrHistogram's tools, and not lost to a bad disk."""

from __future__ import annotations

import csv
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from holdfast_bench.harness import artifacts
from holdfast_bench.harness.artifacts import ResultsUnwritable, hgrm, prepare, write
from holdfast_bench.harness.histogram import HIGHEST_US, Histogram
from holdfast_bench.harness.report.run import read
from holdfast_bench.harness.results import assemble
from tests.unit.harness.runs import DATE, run

RUN = run()
RESULT = assemble(RUN, DATE)
FILES = {
    "result.json",
    "env.json",
    "seconds.csv",
    "intervals.hlog",
    "Reserve.hgrm",
    "Commit.hgrm",
    "Reserve.service.hgrm",
    "Commit.service.hgrm",
}


def write_to(folder: Path, environment: dict[str, Any] | None = None) -> None:
    write(folder, RESULT, environment or {"kernel": "Linux"}, RUN.recorded)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file grow beyond this size, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_run_directory_holds_every_file_and_no_part_of_one(tmp_path: Path) -> None:
    write_to(tmp_path / "deep" / "run")

    folder = tmp_path / "deep" / "run"
    assert {file.name for file in folder.iterdir()} == FILES
    assert json.loads((folder / "result.json").read_text(encoding="utf-8")) == RESULT
    assert json.loads((folder / "env.json").read_text(encoding="utf-8")) == {"kernel": "Linux"}


def test_csv_has_the_rows_of_the_series(tmp_path: Path) -> None:
    write_to(tmp_path)

    with (tmp_path / "seconds.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(RESULT["series"])
    for row, wanted in zip(rows, RESULT["series"], strict=True):
        assert row == {name: "" if value is None else str(value) for name, value in wanted.items()}


def test_intervals_add_up_to_all_response_times_of_the_steady_phase(tmp_path: Path) -> None:
    write_to(tmp_path)

    reader = HistogramLogReader(str(tmp_path / "intervals.hlog"), HdrHistogram(1, HIGHEST_US, 3))
    sums: dict[str, HdrHistogram] = {}
    seconds: dict[str, list[float]] = {}
    while (interval := reader.get_next_interval_histogram()) is not None:
        tag = interval.get_tag()
        sums.setdefault(tag, HdrHistogram(1, HIGHEST_US, 3)).add(interval)
        seconds.setdefault(tag, []).append(interval.get_start_time_stamp() / 1000)
    reader.close()

    assert seconds == {"Reserve": [1.0], "Commit": [1.0, 14.0]}
    for rpc, total in sums.items():
        assert total.equals(HdrHistogram.decode(RUN.recorded.rpcs[rpc].response.as_hdr().encode()))


def test_hgrm_is_the_spectrum_in_ms() -> None:
    histogram = Histogram()
    for ms in (10, 20, 30, 40):
        histogram.add(ms / 1000)

    lines = hgrm(histogram).decode().splitlines()

    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    spectrum = [line.split() for line in lines[2:] if not line.startswith("#")]
    assert float(spectrum[0][0]) == pytest.approx(10, rel=0.001)
    assert float(spectrum[-1][0]) == pytest.approx(40, rel=0.001)
    assert spectrum[-1][1:] == ["1.000000000000", "4"]
    assert lines[-3].startswith("#[Mean    =")
    mean, deviation = (float(part.split("=")[1].strip(" ]")) for part in lines[-3].split(","))
    assert mean == pytest.approx(25, rel=0.001)
    assert deviation == pytest.approx(11.18, rel=0.001)


def test_report_reads_the_spectra_of_response_and_service_times(tmp_path: Path) -> None:
    write_to(tmp_path)

    response, service = (
        read(tmp_path).spectrum("Reserve", kind) for kind in ("response", "service")
    )
    assert not response.is_coarse
    assert not service.is_coarse
    assert service.count == response.count == RESULT["rpcs"]["Reserve"]["count"]
    kept = RUN.recorded.rpcs["Reserve"].service
    assert (tmp_path / "Reserve.service.hgrm").read_bytes() == hgrm(kept) != hgrm(Histogram())


def test_hgrm_of_nothing_is_written_too() -> None:
    assert b"TotalCount     =        0.000" in hgrm(Histogram())


# ---- What can go wrong ----


def test_directory_is_made_and_tried_before_a_run(tmp_path: Path) -> None:
    prepare(tmp_path / "runs" / "first")

    assert list((tmp_path / "runs" / "first").iterdir()) == []


def test_earlier_result_is_never_overwritten(tmp_path: Path) -> None:
    write_to(tmp_path)

    with pytest.raises(ResultsUnwritable, match=r"it holds a result\.json already"):
        prepare(tmp_path)


def test_directory_that_cannot_be_is_refused_before_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")

    with pytest.raises(ResultsUnwritable, match=r"cannot write results to .*: Not a directory"):
        prepare(tmp_path / "file" / "run")


def test_results_go_elsewhere_when_the_directory_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(artifacts, "gettempdir", lambda: str(elsewhere))
    (tmp_path / "run").write_text("in the way", encoding="utf-8")

    with pytest.raises(ResultsUnwritable, match="what was measured is in ") as refused:
        write_to(tmp_path / "run")

    kept = refused.value.kept
    assert kept is not None
    assert kept.parent == elsewhere
    assert {file.name for file in kept.iterdir()} == FILES


def test_full_disk_leaves_no_half_file_and_keeps_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "gettempdir", lambda: str(tmp_path / "nowhere"))
    large = {"notes": "x" * 100_000}

    with (
        files_of_at_most(60_000),
        pytest.raises(ResultsUnwritable, match="File too large") as refused,
    ):
        write_to(tmp_path / "run", large)

    assert refused.value.kept is None
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["result.json"]
    assert json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8")) == RESULT
