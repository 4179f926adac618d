"""Ledger entries on disk, so that a ledger of any length can be read several times."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Self, cast

from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed

from holdfast.v1.ledger_pb2 import LedgerEntry

MEMORY_BYTES_MAX = 32 << 20


class Spool:
    """Entries in the order appended; what is beyond 32 MiB goes to a temporary file."""

    def __init__(self) -> None:
        file = SpooledTemporaryFile(max_size=MEMORY_BYTES_MAX)  # noqa: SIM115  # closed by __exit__
        self._file = cast(BytesIO, file)  # protobuf asks for no more than read and write
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, entry: LedgerEntry) -> None:
        """Add one entry at the end; not while the entries are being read."""
        serialize_length_prefixed(entry, self._file)
        self.count += 1

    def __iter__(self) -> Iterator[LedgerEntry]:
        """Read all entries, one reader at a time."""
        self._file.seek(0)
        for _ in range(self.count):
            entry = parse_length_prefixed(LedgerEntry, self._file)
            assert entry is not None, "as many were written"
            yield entry
