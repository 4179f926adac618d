"""Settings of the server: every default and every limit, in one place.

A setting comes from its flag, else its environment variable (`HOLDFAST_` and the name in upper
case), else the TOML file, else its default.  A key that is not a setting is an error, wherever
it stands.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

ENVIRONMENT_PREFIX = "HOLDFAST_"
# Variables of the same prefix that belong to the client and the command line.
CLIENT_VARIABLES = frozenset({"HOLDFAST_TARGET", "HOLDFAST_TOKEN", "HOLDFAST_PRINCIPAL"})


class ConfigError(ValueError):
    """A setting that is unknown, of the wrong type, or beyond its limits."""


def _setting(default: Any, description: str, **limits: Any) -> Any:
    """Return a field; limits are low, high, choices and is_secret."""
    none = {"low": None, "high": None, "choices": (), "is_secret": False}
    return field(default=default, metadata={"description": description, **none, **limits})


@dataclass(frozen=True)
class ServerConfig:
    """Everything `holdfast serve` can be told."""

    listen: str = _setting("127.0.0.1:7420", "address and port to serve on")
    data: str = _setting("holdfast-data", "directory of the embedded store")
    redis_url: str = _setting(
        "",
        "an existing Redis >= 7.0 or Valkey >= 8: redis://, rediss:// or unix://",
        is_secret=True,
    )
    durability: str = _setting(
        "second",
        "what is safe before an answer: memory, second, always: on the embedded store's disk;"
        " archived: in the archive",
        choices=("memory", "second", "always", "archived"),
    )
    archive: str = _setting(
        "sqlite",
        "where the ledger is kept for good: sqlite in the data directory, off, or a URL,"
        " postgresql+asyncpg:// or sqlite+aiosqlite://",
        is_secret=True,
    )
    ledger_keep: int = _setting(
        100_000, "archived ledger entries that the store keeps", low=0, high=100_000_000
    )
    audit_overflow_mutations: str = _setting(
        "block",
        "when the audit trail or the archive is behind, Reserve and changes of items: block, or go"
        " on and drop-and-count",
        choices=("block", "drop-and-count"),
    )
    audit_overflow_queries: str = _setting(
        "drop-and-count",
        "the same of GetStock",
        choices=("block", "drop-and-count"),
    )
    audit_queue_len_max: int = _setting(
        50_000, "SKUs of audit records that wait to be written before the trail is full", low=1
    )
    audit_stream_max: int = _setting(
        4_096, "groups of audit records, of 256 KiB, that wait in the store to be archived", low=1
    )
    archive_backlog_max: int = _setting(
        1_000_000, "ledger entries that wait to be archived before the archive is behind", low=1
    )
    decision_retention_days: int = _setting(
        1_826, "how long entries of the ledger are kept in the archive", low=1, high=36_500
    )
    query_retention_days: int = _setting(
        90, "how long audit records of queries are kept", low=1, high=36_500
    )
    lock_urls: str = _setting(
        "",
        "masters that elect who archives, an odd number of URLs parted by commas; none = the store",
        is_secret=True,
    )
    on_rollback: str = _setting(
        "recover",
        "when the store lost acknowledged history: recover it from the archive, refuse,"
        " or go on in a new-epoch; without an archive, recover is refuse",
        choices=("recover", "refuse", "new-epoch"),
    )
    cell: int = _setting(0, "number of the cell: its keys are tagged {cN}", low=0, high=16_383)
    maxmemory_mb: int = _setting(0, "memory limit of the embedded store, 0 = none", low=0)
    workers: int = _setting(1, "server processes on the one port", low=1, high=64)
    lanes: int = _setting(2, "batches in flight to the store", low=1, high=16)
    batch_operations_max: int = _setting(128, "operations in a batch", low=1, high=512)
    batch_lines_max: int = _setting(
        256, "lines in a batch beyond the first operation", low=1, high=4096
    )
    queue_len_max: int = _setting(20_000, "operations that may wait; beyond it OVERLOADED", low=1)
    load_high_ms: int = _setting(
        250, "delay in the server from which it asks clients for less", low=1
    )
    load_overloaded_ms: int = _setting(
        1_000, "delay in the server from which Reserve answers OVERLOADED, 0 = never", low=0
    )
    store_timeout_ms: int = _setting(2_000, "time for one answer of the store", low=10)
    retention_ms: int = _setting(900_000, "how long an ended reservation is kept", low=1_000)
    hold_budget: int = _setting(
        0, "units one principal may hold at once, 0 = no limit", low=0, high=1_000_000_000
    )
    log_key: str = _setting(
        "", "file of the Ed25519 key that signs the Merkle logs; none = log.key in data"
    )
    checkpoint_export: str = _setting(
        "", "where signed checkpoints go besides: a directory, or command:PROGRAM ARGUMENTS"
    )
    checkpoint_export_s: int = _setting(60, "least time between two exports of a log", low=1)
    principals: str = _setting("", "TOML file of principals and tokens; none = open mode")
    reflection: bool = _setting(False, "serve gRPC reflection")
    streams_max: int = _setting(20_000, "pending calls before new ones are refused", low=100)
    watches_max: int = _setting(
        20_000, "open watches before new ones are refused as OVERLOADED", low=1
    )
    watch_blocked_ms: int = _setting(
        30_000, "how long a watch waits for a reader that takes nothing", low=100
    )
    watch_stale_ms: int = _setting(
        5_000, "how long the store may say nothing before watches end", low=2_000
    )
    connection_age_s: int = _setting(
        0, "ask clients to reconnect after this long, 0 = never", low=0
    )
    drain_timeout_ms: int = _setting(10_000, "time to finish work after SIGTERM", low=0)
    log_level: str = _setting(
        "info", "least severe log line", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _setting(
        "auto", "console, json, or auto: console on a terminal", choices=("auto", "console", "json")
    )

    def __post_init__(self) -> None:
        for setting in fields(self):
            _check(setting, getattr(self, setting.name))
        if self.durability == "archived" and self.archive == "off":
            raise ConfigError("durability archived needs an archive, and archive is off")
        if 0 < self.load_overloaded_ms <= self.load_high_ms:
            raise ConfigError(
                f"load_overloaded_ms must be above load_high_ms, {self.load_high_ms}, or 0, "
                f"not {self.load_overloaded_ms}"
            )

        _check_command("checkpoint_export", self.checkpoint_export)

    def shown(self) -> dict[str, Any]:
        """Return the settings with secrets masked."""
        return {
            setting.name: _mask(getattr(self, setting.name))
            if setting.metadata["is_secret"]
            else getattr(self, setting.name)
            for setting in fields(self)
        }


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> ServerConfig:
    """Return the effective settings.  Raises ConfigError, naming the key and where it stands."""
    known = {setting.name: setting for setting in fields(ServerConfig)}
    values: dict[str, Any] = {}
    for source, given in (
        (str(file), _from_file(file)),
        ("environment", _from_environment(os.environ if environment is None else environment)),
        ("flags", flags or {}),
    ):
        for name, value in given.items():
            if name not in known:
                raise ConfigError(f"{source}: unknown setting {name!r}")
            values[name] = _convert(known[name], value, source)
    return ServerConfig(**values)


def _from_file(file: Path | None) -> Mapping[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise ConfigError(f"{file}: {fault}") from fault


def _from_environment(environment: Mapping[str, str]) -> Mapping[str, str]:
    return {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX) and name not in CLIENT_VARIABLES
    }


_PASSWORD_ARGUMENT = re.compile(r"(password=)[^&]*")
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _convert(setting: Field[Any], value: Any, source: str) -> Any:
    wanted = type(setting.default)
    if isinstance(value, str) and wanted is int:
        try:
            return int(value)
        except ValueError:
            raise ConfigError(
                f"{source}: {setting.name} must be a whole number, not {value!r}"
            ) from None
    if isinstance(value, str) and wanted is bool:
        if value.lower() not in _TRUTH:
            raise ConfigError(f"{source}: {setting.name} must be true or false, not {value!r}")
        return _TRUTH[value.lower()]
    if type(value) is not wanted:
        raise ConfigError(f"{source}: {setting.name} must be of type {wanted.__name__}")
    return value


def _check(setting: Field[Any], value: Any) -> None:
    low, high, choices = (setting.metadata[key] for key in ("low", "high", "choices"))
    if choices and value not in choices:
        raise ConfigError(f"{setting.name} must be one of {', '.join(choices)}, not {value!r}")
    if low is not None and value < low:
        raise ConfigError(f"{setting.name} must be at least {low}, not {value}")
    if high is not None and value > high:
        raise ConfigError(f"{setting.name} must be at most {high}, not {value}")


def _check_command(name: str, value: str) -> None:
    """Check a setting that may be `command:PROGRAM ARGUMENTS`."""
    kind, _, line = value.partition(":")
    try:
        is_bad = kind == "command" and not shlex.split(line)
    except ValueError:  # a quote that is not closed
        is_bad = True
    if is_bad:
        raise ConfigError(f"{name} must name a program after command:, not {value!r}")


def _mask(urls: str) -> str:
    """Return URLs without their passwords, of which redis-py also takes one as an argument."""
    return ",".join(_mask_one(url) for url in urls.split(","))


def _mask_one(url: str) -> str:
    parts = urlsplit(url)
    parts = parts._replace(query=_PASSWORD_ARGUMENT.sub(r"\1***", parts.query))
    if not parts.password:
        return urlunsplit(parts)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))


def described() -> list[tuple[str, Any, Mapping[str, Any]]]:
    """Return name, default and metadata of every setting, for flags and documentation."""
    return [
        (setting.name, cast(Any, setting.default), setting.metadata)
        for setting in fields(ServerConfig)
    ]
