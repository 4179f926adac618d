"""What a command prints, and how it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

REFUSED: Final = 3  # exit status; 1 and 2 are those of Failure and BadSetting
_WIDTH_UNBOUND = 400  # of a table that goes to a file or a pipe: nothing is cut there

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Failure(click.ClickException):
    """How a command ends that could not do its work: one line on stderr, exit status 1."""

    def __init__(self, message: str, *, reason: str = "", as_json: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.as_json = as_json

    def show(self, file: Any = None) -> None:
        """Print the line, or with --json the document."""
        if self.as_json:
            error = {"reason": self.reason, "message": self.message}
            click.echo(json.dumps({"error": error}), err=True)
        else:
            reason = f"{self.reason}: " if self.reason else ""
            click.echo(f"holdfast: {reason}{self.message}", err=True)


class BadSetting(Failure):
    """A setting that the server cannot start with: exit status 2, as for any wrong usage."""

    exit_code = 2


def plain(value: Any) -> Any:
    """Return a value of the client as what JSON can hold."""
    if hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.hex() if isinstance(value, bytes) else value


def clock(time: datetime | None) -> str:
    """Return a time as a person reads it, in the local time zone."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else ""


@dataclass(frozen=True)
class Output:
    """Prints results: for people, or as JSON with one document a line."""

    as_json: bool

    def document(self, value: Any) -> None:
        """Print one value as JSON."""
        click.echo(json.dumps(plain(value), ensure_ascii=False))

    def say(self, text: str) -> None:
        """Print a line for people; nothing with --json."""
        if not self.as_json:
            click.echo(text)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table for people; columns that start with # are numbers."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in columns:
            is_number = column.startswith("#")
            table.add_column(column.lstrip("#"), justify="right" if is_number else "left")
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        console().print(table, markup=False)


def console() -> Console:
    """Return the console of standard output."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH_UNBOUND, highlight=False)
