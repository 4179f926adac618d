"""The files of a run directory.

    result.json         everything measured, and the judgement
    env.json            what it ran on
    seconds.csv         the series of result.json
    RPC.hgrm            spectrum of response times of the steady phase, in ms
    RPC.service.hgrm    ... of service times
    intervals.hlog      response times second by second

Each is written beside its name and then renamed, so that none is ever seen half written.  When
the directory turns out not to take them, they go where they can, and the error says where.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from io import BytesIO, StringIO
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any

from holdfast_bench.harness.histogram import Histogram
from holdfast_bench.harness.recording import Recorded
from holdfast_bench.harness.series import COLUMNS

US_PER_MS = 1_000
RESULT = "result.json"


class ResultsUnwritable(Exception):
    """A run directory that cannot take the files; `kept` is where they are instead, if anywhere."""

    def __init__(self, run_dir: Path, problem: str, kept: Path | None = None) -> None:
        where = f"; what was measured is in {kept}" if kept else ""
        super().__init__(f"cannot write results to {run_dir}: {problem}{where}")
        self.kept = kept


def prepare(run_dir: Path) -> None:
    """Make the directory, and find out before a run whether it will take its files.

    Raises ResultsUnwritable; also for one that holds a result already, which is never overwritten.
    """
    if (run_dir / RESULT).exists():
        raise ResultsUnwritable(run_dir, f"it holds a {RESULT} already")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        _replace(run_dir / RESULT, b"")
        (run_dir / RESULT).unlink()
    except OSError as fault:
        raise ResultsUnwritable(run_dir, _text(fault)) from fault


def write(
    run_dir: Path, result: Mapping[str, Any], environment: Mapping[str, Any], recorded: Recorded
) -> None:
    """Write all files, the result first.

    Raises ResultsUnwritable, after it has tried to write them to the directory for temporary files.
    """
    try:
        _write_all(run_dir, result, environment, recorded)
    except OSError as fault:
        kept = None
        with suppress(OSError):
            kept = Path(mkdtemp(prefix="holdfast-bench-", dir=gettempdir()))
            _write_all(kept, result, environment, recorded)
        is_kept = kept is not None and (kept / RESULT).exists()
        raise ResultsUnwritable(run_dir, _text(fault), kept if is_kept else None) from fault


def _write_all(
    run_dir: Path, result: Mapping[str, Any], environment: Mapping[str, Any], recorded: Recorded
) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Callable[[], bytes]] = {
        RESULT: lambda: _json(result),
        "env.json": lambda: _json(environment),
        "seconds.csv": lambda: seconds_csv(result),
        "intervals.hlog": lambda: intervals_hlog(recorded, result["date"]),
    }
    for name, content in contents.items():
        _replace(run_dir / name, content())
    for rpc, calls in recorded.rpcs.items():
        _replace(run_dir / f"{rpc}.hgrm", hgrm(calls.response))
        _replace(run_dir / f"{rpc}.service.hgrm", hgrm(calls.service))


def _replace(path: Path, content: bytes) -> None:
    """Write a file that is whole or is not there."""
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


def seconds_csv(result: Mapping[str, Any]) -> bytes:
    """Return the series as CSV; what is null in JSON is empty here."""
    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(result["series"])
    return text.getvalue().encode()


def hgrm(histogram: Histogram) -> bytes:
    """Return the percentile spectrum in ms, in the form that wrk2 prints and plotters read."""
    output = BytesIO()
    hdr = histogram.as_hdr()
    hdr.output_percentile_distribution(output, US_PER_MS)
    # The library scales every value but the deviation.
    scaled = f"StdDeviation   = {hdr.get_stddev() / US_PER_MS:12.3f}]"
    lines = output.getvalue().decode().splitlines()
    return "\n".join(
        line[: line.index("StdDeviation")] + scaled if line.startswith("#[Mean") else line
        for line in (*lines, "")
    ).encode()


def intervals_hlog(recorded: Recorded, date: str) -> bytes:
    """Return response times of the steady phase second by second and RPC by RPC, maxima in ms."""
    return "\n".join((*_hlog_lines(recorded, date), "")).encode()


def _hlog_lines(recorded: Recorded, date: str) -> Iterator[str]:
    yield "#[Response times in us; the tag is the RPC, times count from the first planned start]"
    yield f"#[Run of {date}]"
    yield "#[Histogram log format version 1.3]"
    yield "#[StartTime: 0.000 (seconds since the first planned start)]"
    yield "#[BaseTime: 0.000 (seconds since the first planned start)]"
    yield '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'
    for second in sorted(recorded.seconds):
        for rpc, calls in sorted(recorded.seconds[second].measured.items()):
            blob = calls.response.as_hdr().encode().decode()
            longest = calls.response.max_us / US_PER_MS
            yield f"Tag={rpc},{second:.3f},1.000,{longest:.3f},{blob}"


def _text(fault: OSError) -> str:
    return fault.strerror or str(fault)
