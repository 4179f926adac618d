"""Measure, and print the table: `python -m holdfast_bench`, which is `make bench`.

Exit status 1 when a ratio that is owed is not met, 2 when nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import uvloop

from holdfast_bench.benchmarks import (
    archive,
    archived,
    auditing,
    durability,
    group_commit,
    memory,
    proof,
    recovery,
    replay,
    rpc,
    script_time,
    sku_spread,
    watch,
)
from holdfast_bench.measure import Plan, Row, exit_status, table
from holdfast_bench.stores import StoreAddress, stores
from holdfast_server.errors import StoreUnavailable

FULL, QUICK = Plan(), Plan(rounds=1, seconds=0.2)

BENCHMARKS: dict[str, Callable[[Plan, StoreAddress], Awaitable[list[Row]]]] = {
    module.__name__.rpartition(".")[2]: module.run
    for module in (
        group_commit,
        sku_spread,
        rpc,
        script_time,
        durability,
        archive,
        archived,
        auditing,
        memory,
        watch,
        proof,
        recovery,
        replay,
    )
}
# Brings stores of its own, or measures what the store has little to do with: once is enough.
ON_FIRST_STORE = {
    "archive",
    "archived",
    "auditing",
    "durability",
    "proof",
    "recovery",
    "replay",
    "watch",
}


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m holdfast_bench", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one short round: shows that everything runs, judges nothing",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=BENCHMARKS,
        metavar="NAME",
        help=f"one benchmark, repeatable: {', '.join(BENCHMARKS)}",
    )
    parser.add_argument(
        "--redis-url",
        default="",
        metavar="URL",
        help="measure on this store alone, in cells of its own; the default is "
        "the embedded Valkey, and redis-server if it is installed",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every round's values to a file too"
    )
    options = parser.parse_args(words)
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json: there is no directory {options.json.parent}")
    return options


async def measure(plan: Plan, names: Sequence[str], redis_url: str) -> list[Row]:
    """Run the named benchmarks on every store, telling which on standard error."""
    rows = []
    async with stores(redis_url) as addresses:
        for name in names:
            for address in addresses[:1] if name in ON_FIRST_STORE else addresses:
                print(f"{name} on {address.name}", file=sys.stderr, flush=True)
                rows += await BENCHMARKS[name](plan, address)
    return rows


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    return {
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
    }


def main(words: Sequence[str] | None = None) -> int:
    """Run, print, and return the exit status."""
    options, where = arguments(words), machine()
    plan = QUICK if options.quick else FULL
    try:
        rows = uvloop.run(measure(plan, options.only or list(BENCHMARKS), options.redis_url))
    except StoreUnavailable as fault:
        print(fault, file=sys.stderr)
        return 2
    print(
        f"Medians of {plan.rounds} rounds of two {plan.seconds:g} s turns (least..most); "
        f"{where['cpus']} CPUs, Python {where['python']}, grpcio {where['grpcio']}.\n"
    )
    print(table(rows, plan))
    if options.json:
        report = {
            "machine": where,
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "is_judged": plan.is_judged,
            "rows": [row.as_json() for row in rows],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return exit_status(rows, plan)


if __name__ == "__main__":
    sys.exit(main())
