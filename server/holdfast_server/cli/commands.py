"""The commands by name; each is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

import click

_COMMANDS = {
    "serve": "serving",
    "config": "serving",
    "demo": "demonstrating",
    "bench": "benching",
    "import": "importing",
    "items": "stock",
    "stock": "stock",
    "watch": "watching",
    "reserve": "reservations",
    "commit": "reservations",
    "release": "reservations",
    "extend": "reservations",
    "reservation": "reservations",
    "ledger": "ledger",
    "check": "ledger",
    "audit": "audit",
    "version": "version",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"holdfast_server.cli.{_COMMANDS[cmd_name]}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def holdfast() -> None:
    """Holdfast: stock holds for AI agents, never oversold.

    Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused (sold out is an answer).
    """
