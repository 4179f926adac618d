"""The command line: `holdfast COMMAND`.

`main` needs the standard library alone, so that an installation of the client without the server
extra can say what it lacks.
"""

from __future__ import annotations

import sys
from importlib import import_module


def main() -> None:
    """Run the command line, or name the extra that it needs."""
    try:
        commands = import_module("holdfast_server.cli.commands")
        commands.holdfast(prog_name="holdfast")
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("holdfast"):
            raise
        sys.exit(
            f"holdfast: {missing.name} is not installed: the command line needs the server extra\n"
            "  pip install 'holdfast[server]'"
        )
