"""`serve` and `config`: every setting of the server is a flag of both."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import uvloop

from holdfast_server import app, config, logs, workers
from holdfast_server.cli.terminal import BadSetting, Failure, Output, json_option
from holdfast_server.errors import StoreFault
from holdfast_server.stores.redis.embedded import DataDirInUse, EmbeddedStartFailed

PORT_MAX = 65_535
_HOST_PORT = re.compile(r"(.+):([0-9]{1,5})")
F = TypeVar("F", bound=Callable[..., Any])

file_option = click.option(
    "--config",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file of settings; flags and HOLDFAST_* variables win over it.",
)


def setting_options(command: F) -> F:
    """Add a flag for every setting of the server."""
    for name, default, metadata in reversed(config.described()):
        flag = "--" + name.replace("_", "-")
        if isinstance(default, bool):
            flag = f"{flag}/--no-{flag[2:]}"
        command = click.option(
            flag, name, type=_type(default, metadata), default=None, help=_help(default, metadata)
        )(command)
    return command


def _type(default: Any, metadata: Any) -> click.ParamType[Any] | type:
    if metadata["choices"]:
        return click.Choice(metadata["choices"])
    return type(default)


def _help(default: Any, metadata: Any) -> str:
    low, high = metadata["low"], metadata["high"]
    limits = f"{low}..{high}, " if high is not None else f"{low} or more, " if low else ""
    shown = str(default).lower() if isinstance(default, bool) else default
    note = f"{limits}default {shown}" if shown != "" else limits.rstrip(", ")
    return f"{metadata['description']}  [{note}]" if note else metadata["description"]


def _load(flags: dict[str, Any], file: Path | None, *, as_json: bool) -> config.ServerConfig:
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return config.load(given, file=file)
    except config.ConfigError as error:
        raise BadSetting(str(error), reason="bad setting", as_json=as_json) from error


def _check_address(listen: str) -> None:
    """Find out what keeps the server from listening, for gRPC would only log it.

    Raises ConfigError for what is no address, OSError for one that cannot be had.
    """
    if listen.startswith("unix:"):
        return
    form = _HOST_PORT.fullmatch(listen)
    if form is None or int(form[2]) > PORT_MAX:
        raise config.ConfigError(f"listen must be HOST:PORT or unix:PATH, not {listen!r}")
    try:
        found = socket.getaddrinfo(form[1].strip("[]"), int(form[2]), type=socket.SOCK_STREAM)
        family, kind, protocol, _name, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise OSError(f"cannot listen on {listen}: {error.strerror}") from error


@click.command()
@setting_options
@file_option
@json_option
def serve_command(file: Path | None, as_json: bool, **flags: Any) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight.

    Without --redis-url the server runs a private Valkey in --data.
    """
    if as_json:
        flags["log_format"] = "json"
    settings = _load(flags, file, as_json=as_json)
    logs.configure(level=settings.log_level, style=settings.log_format)
    is_single = settings.workers == 1
    try:
        _check_address(settings.listen)
        uvloop.run(app.serve(settings) if is_single else workers.serve_with_workers(settings))
    except config.ConfigError as error:
        raise BadSetting(str(error), reason="bad setting", as_json=as_json) from error
    except (DataDirInUse, EmbeddedStartFailed, StoreFault, OSError) as error:
        raise Failure(str(error), as_json=as_json) from error


@click.command()
@setting_options
@file_option
@json_option
def config_command(file: Path | None, as_json: bool, **flags: Any) -> None:
    """Print the settings that `serve` would use, as TOML, with secrets masked."""
    shown = _load(flags, file, as_json=as_json).shown()
    if as_json:
        Output(as_json).document(shown)
        return
    for name, _default, metadata in config.described():
        click.echo(
            f"{name} = {json.dumps(shown[name], ensure_ascii=False)}  # {metadata['description']}"
        )
