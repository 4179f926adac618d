"""Log lines as they leave the process."""

from __future__ import annotations

import io
import json
import sys

import pytest
import structlog

from holdfast_server import logs


class Pipe(io.RawIOBase):
    """Takes what is written to it, write by write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.writes.append(bytes(data))  # type: ignore[call-overload]  # any buffer
        return len(self.writes[-1])


def test_a_line_leaves_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers share one stderr: what they write in two goes would mix."""
    pipe = Pipe()
    stderr = io.TextIOWrapper(io.BufferedWriter(pipe), write_through=True)
    monkeypatch.setattr(sys, "stderr", stderr)
    logs.configure(level="info", style="json")
    try:
        structlog.get_logger().info("serving", target="127.0.0.1:7420")
        structlog.get_logger().warning("draining")
    finally:
        structlog.reset_defaults()
    assert [json.loads(line)["event"] for line in pipe.writes] == ["serving", "draining"]
