"""A run directory as it was left: result.json, env.json and the histograms, read and not judged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from holdfast_bench.harness.report.chart import Band
from holdfast_bench.harness.report.spectrum import Spectrum, from_figures, from_hgrm

SCHEMA_VERSION: Final = 1
OUTCOMES: Final = ("ok", "sold_out", "refused", "throttled", "shed", "deadline", "error")
REFUSALS: Final = ("sold_out", "refused")
TURNED_AWAY: Final = ("throttled", "shed")
FAILURES: Final = ("deadline", "error")
MEASURED: Final = "steady"

Row = Mapping[str, Any]


class UnreadableRun(Exception):
    """A directory that holds no run, or one that this version cannot read; names which and why."""


@dataclass(frozen=True)
class Run:
    """What a run left behind.  Times are seconds since its load began;
    connections are made before, at negative ones."""

    folder: Path
    result: Row
    environment: Row = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The scenario."""
        return str(self.result.get("name") or self.folder.name)

    def part(self, key: str) -> Row:
        """Return an object of the result; empty where the run did not get so far."""
        found = self.result.get(key)
        return found if isinstance(found, Mapping) else {}

    def rows(self, key: str) -> Sequence[Row]:
        """Return a list of objects of the result; empty where the run did not get so far."""
        found = self.result.get(key)
        return [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []

    @property
    def notes(self) -> list[str]:
        """What the harness wants said of the run."""
        return [str(note) for note in self.result.get("notes") or ()]

    def timed(self, key: str) -> Iterator[tuple[float, Row]]:
        """Yield the rows of a series, each with its time, in order."""
        rows = sorted(self.rows(key), key=lambda row: float(row["t"]))
        return ((float(row["t"]), row) for row in rows)

    @cached_property
    def bands(self) -> list[Band]:
        """The phases."""
        return [
            Band(
                str(phase["name"]),
                float(phase["began"]),
                float(phase["ended"]),
                phase["name"] == MEASURED,
            )
            for phase in self.rows("phases")
        ]

    @property
    def ended(self) -> float:
        """When the last phase ended; 0 where there is none."""
        return max((band.ended for band in self.bands), default=0.0)

    @property
    def measured(self) -> Band | None:
        """The phase that figures are taken from."""
        return next((band for band in self.bands if band.measured), None)

    @cached_property
    def rpcs(self) -> list[tuple[str, Row]]:
        """The RPCs that were called, the most frequent first."""
        return sorted(self.part("rpcs").items(), key=lambda rpc: -int(rpc[1].get("count", 0)))

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """How often calls of all RPCs ended each way."""
        ended = [rpc.get("outcomes", {}) for _, rpc in self.rpcs]
        return {name: sum(int(one.get(name, 0)) for one in ended) for name in OUTCOMES}

    def spectrum(self, rpc: str, kind: str = "response") -> Spectrum:
        """Return the latencies of an RPC, as finely as the run kept them."""
        figures = self.part("rpcs").get(rpc, {})
        named, count = figures.get(kind) or {}, int(figures.get("count", 0))
        suffix = "" if kind == "response" else f".{kind}"
        path = self.folder / f"{Path(rpc).name}{suffix}.hgrm"
        return from_hgrm(path, named.get("max")) or from_figures(named, count)

    def broken(self) -> list[str]:
        """Return what was promised and not kept."""
        broken = [str(one["name"]) for one in self.rows("verdicts") if not one["holds"]]
        if self.part("units").get("oversold") and "never_oversold" not in broken:
            broken.append("never_oversold")
        return broken

    def doubts(self) -> list[str]:
        """Return why the figures are those of the generator rather than of the server."""
        generator = self.part("generator")
        if generator.get("is_valid", True):
            return []
        return [str(why) for why in generator.get("reasons", ())] or ["no reason was recorded"]

    def missed(self) -> list[Row]:
        """Return the thresholds that were not met."""
        return [threshold for threshold in self.rows("thresholds") if not threshold["holds"]]


def read(folder: Path) -> Run:
    """Return what a run left in a directory.

    Raises UnreadableRun when there is no result of a version that is known.
    """
    result = _document(folder / "result.json")
    if result is None:
        raise UnreadableRun(f"{folder}: holds no result.json")
    version = result.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UnreadableRun(f"{folder}: schema_version is {version!r}, not {SCHEMA_VERSION}")
    return Run(folder, result, _document(folder / "env.json") or {})


def _document(path: Path) -> Row | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UnreadableRun(f"{path}: {error}") from error
    if not isinstance(found, Mapping):
        raise UnreadableRun(f"{path}: is not a JSON object")
    return found
