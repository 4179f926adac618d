"""Lines of JSON between the conductor and a process of the generator."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

LINE_BYTES_MAX = 64 << 20


class Lines:
    """Standard input and output, line by line, without ever blocking the event loop."""

    async def open(self) -> None:
        """Take over standard input and output."""
        loop = asyncio.get_running_loop()
        self._input = asyncio.StreamReader(limit=LINE_BYTES_MAX)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._input), sys.stdin)
        transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, sys.stdout
        )
        transport.set_write_buffer_limits(high=0)  # what was said has left
        self._output = asyncio.StreamWriter(transport, protocol, None, loop)

    async def read(self) -> Any:
        """Return the next line, None at the end."""
        line = await self._input.readline()
        return json.loads(line) if line else None

    async def say(self, value: Any) -> None:
        """Write one line."""
        self._output.write(json.dumps(value).encode() + b"\n")
        await self._output.drain()
