"""What the system must allow: descriptors and ports, counted before a run, not found out in it."""

from __future__ import annotations

import resource
from pathlib import Path

from holdfast_bench.harness.faults import LimitTooLow

DESCRIPTORS_BESIDES = 256  # of a process: its code, logs, event loop, gRPC's own
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def descriptors_needed(connections: int, processes: int, *, is_embedded: bool) -> int:
    """Return how many descriptors the process of a run that needs most of them has open."""
    share = -(-connections // processes)
    return (connections if is_embedded else share) + DESCRIPTORS_BESIDES


def allow(connections: int, processes: int, *, is_embedded: bool) -> None:
    """Raise the soft limit of descriptors as far as the run needs, and count ports.

    Processes started later inherit the limit.  Raises LimitTooLow, naming the limit.
    """
    needed = descriptors_needed(connections, processes, is_embedded=is_embedded)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        who = "the embedded server" if is_embedded else "a process of the generator"
        raise LimitTooLow(
            f"open files: {who} needs {needed} for {connections} connections, and the hard limit "
            f"(ulimit -Hn) is {hard}; raise it, or use fewer --connections"
        )
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    ports = _ports()
    if ports and connections > ports:
        raise LimitTooLow(
            f"local ports: {connections} connections to one address need as many, and "
            f"net.ipv4.ip_local_port_range leaves {ports}; widen it, or use fewer --connections"
        )


def _ports() -> int:
    """Return how many connections to one address there can be; 0 where it cannot be told."""
    try:
        low, high = map(int, _PORT_RANGE.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return 0
    return high - low + 1
