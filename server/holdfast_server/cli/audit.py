"""`audit`: that the record was not touched, and who signs it."""

from __future__ import annotations

import click

from holdfast_server.cli.proving import rotate_key_command, verify_command


@click.group()
def audit_command() -> None:
    """Look back: what was decided, and that the record was not touched."""


for command in (verify_command, rotate_key_command):
    audit_command.add_command(command)
