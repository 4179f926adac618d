"""A scenario: what ten thousand agents do to a server, for how long, and what is expected of it.

A scenario is read from TOML: a shipped one by its name, any other by its path.

A session is one agent's life: browse, think, reserve, pay, and one end.  Open arrivals plan the
moment each session starts, whatever the server does; closed arrivals start a session when
another one ends, and so cannot show how long a caller waits at a given load.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from holdfast_bench.harness.scenario_tables import (
    SESSIONS_MAX,
    Arrivals,
    Catalogue,
    Ends,
    Expectation,
    Fault,
    Life,
    Phases,
    Saturate,
    Think,
    check_threshold,
)
from holdfast_bench.harness.settings import ScenarioError, build, check_limits, setting, table

__all__ = [
    "Arrivals",
    "Catalogue",
    "Ends",
    "Expectation",
    "Fault",
    "Life",
    "Phases",
    "Saturate",
    "Scenario",
    "ScenarioError",
    "Think",
    "build",
    "load",
    "shipped",
]


@dataclass(frozen=True)
class Scenario:
    """Everything a run is made of; the same scenario and seed plan the same load."""

    name: str = setting("unnamed", "what reports call it")
    description: str = setting("", "one sentence")
    seed: int = setting(1, "of every random choice", low=0, high=2**63 - 1)
    sessions_max: int = setting(
        10_000, "sessions alive at once; a start beyond is dropped", low=1, high=SESSIONS_MAX
    )
    transport: str = setting(
        "coalesced", "how calls travel", choices=("coalesced", "unary", "pipeline")
    )
    connections: int = setting(8, "TCP connections of all processes", low=1, high=20_000)
    processes: int = setting(1, "processes that generate the load", low=1, high=64)
    watchers: int = setting(0, "watches open beside the sessions", low=0, high=SESSIONS_MAX)
    thresholds: tuple[str | Expectation, ...] = setting(
        (), "what is expected of the result, as text or as a table", part=Expectation
    )
    catalogue: Catalogue = field(
        default_factory=Catalogue, metadata=table(Catalogue, "what is on sale")
    )
    arrivals: Arrivals = field(
        default_factory=Arrivals, metadata=table(Arrivals, "when sessions start")
    )
    life: Life = field(default_factory=Life, metadata=table(Life, "what one agent does"))
    phases: Phases = field(default_factory=Phases, metadata=table(Phases, "how long it lasts"))
    fault: Fault | None = field(default=None, metadata=table(Fault, "what breaks"))
    saturate: Saturate | None = field(
        default=None, metadata=table(Saturate, "search for the limit")
    )

    def __post_init__(self) -> None:
        check_limits(self)
        for number, threshold in enumerate(self.thresholds):
            if isinstance(threshold, str):
                check_threshold(f"thresholds[{number}]", threshold)
        self._check_agreement()

    @property
    def expressions(self) -> list[str]:
        """What is expected of the result, whether or not it ends a run."""
        return [one if isinstance(one, str) else one.expression for one in self.thresholds]

    @property
    def aborting(self) -> list[Expectation]:
        """What ends a run that fails it."""
        return [
            one for one in self.thresholds if isinstance(one, Expectation) and one.abort_on_fail
        ]

    def _check_agreement(self) -> None:
        """Raise ScenarioError for keys that are fine alone and not together."""
        skus, most = self.catalogue.skus, self.life.lines[1]
        if most > skus:
            raise ScenarioError("life.lines", f"must be at most the {skus} SKUs, not {most}")
        if self.connections < self.processes:
            raise ScenarioError(
                "connections", f"must be at least one of {self.processes} processes"
            )
        if not self.arrivals.is_open and self.arrivals.sessions > self.sessions_max:
            raise ScenarioError(
                "arrivals.sessions", f"must be at most sessions_max, {self.sessions_max:,}"
            )
        for number, one in enumerate(self.thresholds):
            if isinstance(one, Expectation) and one.after_s >= self.phases.steady_s:
                raise ScenarioError(
                    f"thresholds[{number}].after_s",
                    f"must be below steady_s, {self.phases.steady_s:g}",
                )
        if self.fault and self.fault.at_s >= self.phases.steady_s:
            raise ScenarioError("fault.at_s", f"must be below steady_s, {self.phases.steady_s:g}")

    def as_read(self) -> dict[str, Any]:
        """Return every key and its value, defaults too, as result.json shows them."""
        return asdict(self)


def shipped() -> list[str]:
    """Return the names of the scenarios that come with the harness."""
    folder = files("holdfast_bench.harness") / "scenarios"
    names = (file.name for file in folder.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def load(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> Scenario:
    """Return a scenario: a shipped one by name, or that of a TOML file.

    Overrides have dotted names, `arrivals.rate`; their values may be text.
    Raises ScenarioError, which names the key and its limit.
    """
    given = _read(name_or_path)
    for name, value in (overrides or {}).items():
        _override(given, name.split("."), value)
    return build(Scenario, given)


def _read(name_or_path: str) -> dict[str, Any]:
    is_path = name_or_path.endswith(".toml") or "/" in name_or_path
    if not is_path and name_or_path not in shipped():
        raise ScenarioError(
            name_or_path,
            f"is not a scenario; shipped: {', '.join(shipped())}; or give a .toml file",
        )
    source = Path(name_or_path)
    shipped_file = files("holdfast_bench.harness") / "scenarios" / f"{name_or_path}.toml"
    try:
        text = (source if is_path else shipped_file).read_text(encoding="utf-8")
        given = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise ScenarioError(name_or_path, f"cannot be read: {fault}") from fault
    return {"name": source.stem, **given}


def _override(given: dict[str, Any], path: list[str], value: Any) -> None:
    for table_name in path[:-1]:
        given = given.setdefault(table_name, {})
        if not isinstance(given, dict):
            raise ScenarioError(".".join(path), f"is not a key: {table_name} is no table")
    given[path[-1]] = value
