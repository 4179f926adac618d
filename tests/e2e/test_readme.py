"""What the README tells people to type works as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
USE_IT = README.partition("## Use it")[2].partition("\n## ")[0]
COMMANDS, PROGRAM = re.findall(r"```\w*\n(.*?)```", USE_IT, re.DOTALL)
USUAL = "127.0.0.1:7420"
CATALOGUE = "sku,location,on_hand\nSKU-1,shop,5\nSKU-2,shop,1\n"

# The program stands in the README without the frame that an asyncio program has.
FRAME = """
import asyncio

async def pay():
    pass

async def main():
{body}

asyncio.run(main())
"""


def commands() -> list[list[str]]:
    lines = (line.partition("  #")[0].strip() for line in COMMANDS.splitlines())
    return [shlex.split(line) for line in lines if line]


@contextmanager
def served(words: list[str], folder: Path) -> Iterator[str]:
    """Run the README's `holdfast serve` on a free port, and give its target."""
    words = ["127.0.0.1:0" if word == USUAL else word for word in words]
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast_server.cli", *words[1:]],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        events = (json.loads(line) for line in process.stderr)
        yield next(event["target"] for event in events if event["event"] == "serving")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 0


def test_the_commands_and_the_program_of_the_readme_work_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "catalogue.csv").write_text(CATALOGUE)
    serve, *others = commands()
    with served(serve, tmp_path) as target:
        environment = {**os.environ, "HOLDFAST_TARGET": target}
        for words in others:
            done = subprocess.run(
                [sys.executable, "-m", "holdfast_server.cli", *words[1:]],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, (words, done.stdout, done.stderr)
        imports, body = PROGRAM.partition("\n\n")[::2]
        program = imports + FRAME.format(body=textwrap.indent(body, "    "))
        program = program.replace(USUAL, target)
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_two_commands_that_set_everything_up_are_targets_of_make() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make (\w+)", README, re.MULTILINE))

    assert named == {"demo", "test"}
    assert named <= targets
