"""Proof that an installed wheel works by itself: serve, import, sell, check, stop.

Run by any Python that has the wheel with its server extra installed, from any folder; nothing of
the checkout is used.  Prints OK, or what failed and exits with 1.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast import Client, OutOfStock

START_S_MAX, STOP_S_MAX = 30, 30
HOLDFAST = str(Path(sys.executable).with_name("holdfast"))
CATALOGUE = "sku,location,on_hand\nMUG,Main,5\nLAMP,Main,1\n"


@contextmanager
def served(data: Path) -> Iterator[str]:
    """Serve until the block ends, then expect status 0 on SIGTERM."""
    words = ("--listen", "127.0.0.1:0", "--data", str(data), "--log-format", "json")
    with subprocess.Popen([HOLDFAST, "serve", *words], stderr=subprocess.PIPE) as server:
        signal.signal(signal.SIGALRM, lambda *_: server.kill())
        signal.alarm(START_S_MAX)
        try:
            assert server.stderr is not None
            entries = (json.loads(line) for line in server.stderr if line.startswith(b"{"))
            targets = (entry["target"] for entry in entries if entry["event"] == "serving")
            target = next(targets, None)
            signal.alarm(0)
            assert target, "the server ended before it served"
            yield target
            server.send_signal(signal.SIGTERM)
            status = server.wait(timeout=STOP_S_MAX)
            assert status == 0, f"the server ended with status {status}"
        finally:
            server.kill()


def holdfast(*words: str, target: str) -> str:
    """Run one command and return what it printed."""
    environment = {**os.environ, "HOLDFAST_TARGET": target}
    done = subprocess.run(
        [HOLDFAST, *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, f"holdfast {words[0]}: {done.stdout}{done.stderr}"
    return done.stdout


def sell(target: str) -> None:
    """Sell the only lamp, and see the next buyer refused."""
    with Client(target) as client:
        reserved = client.reserve([("LAMP", 1), ("MUG", 2)], ttl=60)
        sold = client.commit(reserved.reservation.reservation_id, order_ref="smoke-1")
        assert sold.reservation.state == "COMMITTED", sold
        try:
            client.reserve([("LAMP", 1)])
        except OutOfStock as refused:
            left = refused.lines[0].available
        else:
            left = 1
        assert left == 0, "the only lamp was sold twice"


def main() -> None:
    """Run everything in a folder that is removed again."""
    with tempfile.TemporaryDirectory(prefix="holdfast-smoke-") as folder:
        file = Path(folder, "catalogue.csv")
        file.write_text(CATALOGUE, encoding="utf-8")
        with served(Path(folder, "data")) as target:
            holdfast("import", str(file), "--strict", target=target)
            sell(target)
            level = json.loads(holdfast("stock", "MUG", "--json", target=target))["levels"][0]
            assert (level["available"], level["committed"]) == (3, 2), level
            assert json.loads(holdfast("check", "--json", target=target))["holds"]
        holdfast("demo", "--seconds", "1", "--agents", "20", "--json", target="")
    print("OK")


if __name__ == "__main__":
    main()
