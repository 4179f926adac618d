"""Start a contestant in a process of its own, and ask it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from holdfast_bench.harness.scenario import Catalogue
from holdfast_bench.peers.terms import PeerUnavailable

STOP_S_MAX = 20.0


class Cpu(NamedTuple):
    """Processor seconds of a server and of its store."""

    server: float
    store: float

    def since(self, before: Cpu) -> Cpu:
        """Return what was used since then."""
        return Cpu(self.server - before.server, self.store - before.store)


class Contestant:
    """A server that serves."""

    def __init__(self, process: subprocess.Popen[str], target: str) -> None:
        self._process, self.target = process, target

    def cpu(self) -> Cpu:
        """Return the processor time used so far."""
        return Cpu(**self._asked("cpu"))

    def count(self) -> dict[str, Any] | None:
        """Return the units on sale, sold, held and oversold; None from one that decides nothing."""
        answer: dict[str, Any] | None = self._asked("count")
        return answer

    def _asked(self, question: str) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        print(question, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise PeerUnavailable("a server ended in its turn: its error is above")
        return json.loads(answer)


@contextmanager
def started(name: str, stock: Catalogue) -> Iterator[Contestant]:
    """Run a contestant until the block ends.  Raises PeerUnavailable when it does not start."""
    words = (name, str(stock.skus), str(stock.units))
    command = (sys.executable, "-m", "holdfast_bench.peers.serving", *words)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        target = process.stdout.readline().strip()
        if not target:
            raise PeerUnavailable(f"{name} did not start: its error is above")
        try:
            yield Contestant(process, target)
        finally:
            process.stdin.close()
            process.wait(STOP_S_MAX)
