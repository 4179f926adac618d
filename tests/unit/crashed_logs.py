"""Kill the writer of a log at every step it takes on the disk, and see what the next one finds.

A program of its own, so that it can fork: `python -m tests.unit.crashed_logs DIRECTORY`.  The steps
are the system's audit events of files; each of them is the last of one child.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from holdfast.proofs import leaf_hash
from holdfast_server.ledger.log_files import LogFiles
from holdfast_server.ledger.log_verify import verify
from holdfast_server.ledger.merkle import tree_hash
from tests.unit.kept_logs import KeptLog, leaf

STEPS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"})
BEFORE, AFTER = 250, 520  # two bundles become full on the way
LEAVES = [leaf(index) for index in range(AFTER)]


def grow(log: KeptLog) -> None:
    """Take a log to its end, in two appends, and purge its first bundle."""
    with log.writing() as writer:
        for through in (BEFORE, BEFORE + 10, AFTER):
            if writer.size < through:
                writer.append(LEAVES[writer.size : through])
        writer.purge(256)


def kill_at(step: int) -> None:
    """Kill this process when it is about to take a step."""
    taken = 0

    def heed(event: str, _arguments: object) -> None:
        nonlocal taken
        if event in STEPS:
            taken += 1
            if taken == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(heed)


def in_child(work: Callable[[], None]) -> bool:
    """Run a work in a fork; tell whether it came to its end."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException as fault:
            os.write(2, f"{fault!r}\n".encode())
            os._exit(1)
    _pid, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or not os.WEXITSTATUS(status), "see the child's error above"
    return not os.WIFSIGNALED(status)


def check(log: KeptLog) -> None:
    """Let the next writer finish, and compare the tree with the one that nothing disturbed."""
    grow(log)
    report = verify(log.directory)
    assert not report.problems, report
    assert report.root == tree_hash(list(map(leaf_hash, LEAVES)))
    assert (report.size, report.purged, report.entries) == (AFTER, 256, AFTER - 256)
    assert not report.strays, report.strays


def killed_at_every_step(home: Path) -> int:
    """Kill one writer after another, each a step later; return how many steps there are."""
    step = 0
    while True:
        step += 1
        log = KeptLog(home / f"killed {step}", 0)
        log.leaves = LEAVES

        def work(step: int = step, log: KeptLog = log) -> None:
            kill_at(step)
            grow(log)

        if in_child(work):
            return step - 1
        check(log)


def full_at_every_size(home: Path) -> int:
    """Let no file grow beyond a size, as a full disk would, each time a little later."""
    sizes = range(50, 6_000, 150)
    for size in sizes:
        log = KeptLog(home / f"full {size}", 0)
        log.leaves = LEAVES

        def work(size: int = size, log: KeptLog = log) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            try:
                grow(log)
            except OSError:
                raw = LogFiles(log.directory).read("checkpoint")
                assert raw is None or not verify(log.directory).problems

        assert in_child(work)
        check(log)
    return len(sizes)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    print(killed_at_every_step(where), full_at_every_size(where))
