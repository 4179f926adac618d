"""What a scenario's fault does to the embedded server or its store."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from holdfast_bench.harness.alarm import Alarm
from holdfast_bench.harness.embedded import EmbeddedServer
from holdfast_bench.harness.scenario import Fault


async def strike(
    fault: Fault, server: EmbeddedServer, at: float, note: Callable[[str], None]
) -> None:
    """Wait for the moment, and strike; a pause is over when this returns, however it does."""
    with Alarm() as alarm:
        await alarm.until(at)
    pid = server.store_pid if fault.target == "store" else server.pid
    if fault.kind == "kill":
        os.kill(pid, signal.SIGKILL)
        note(f"fault: kill -9 of the {fault.target}, {fault.at_s:g} s into the steady phase")
        return
    os.kill(pid, signal.SIGSTOP)
    note(f"fault: the {fault.target} is stopped for {fault.for_s:g} s")
    try:
        await asyncio.sleep(fault.for_s)
    finally:
        os.kill(pid, signal.SIGCONT)
