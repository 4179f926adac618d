"""`audit`: what was decided and why, what a level was, and whether it is all decided so again."""

from __future__ import annotations

import click

from holdfast_server.cli.exporting import export_command
from holdfast_server.cli.past import explain_command, show_command, stock_command
from holdfast_server.cli.rechecking import check_command


@click.group()
def audit_command() -> None:
    """Look back: what was decided, and why."""


for command in (show_command, stock_command, explain_command, export_command, check_command):
    audit_command.add_command(command)
