"""`audit`: what was decided and why, and that the record of it was not touched."""

from __future__ import annotations

import click

from holdfast_server.cli.exporting import export_command
from holdfast_server.cli.past import explain_command, show_command, stock_command
from holdfast_server.cli.proving import rotate_key_command, verify_command
from holdfast_server.cli.rechecking import check_command


@click.group()
def audit_command() -> None:
    """Show what was decided, and that the record was not touched."""


for command in (
    show_command,
    stock_command,
    explain_command,
    export_command,
    check_command,
    verify_command,
    rotate_key_command,
):
    audit_command.add_command(command)
