"""Fields of an error that read what the server said, by its key in ErrorInfo.metadata."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


class Speaker(Protocol):
    """An error, as far as its fields know it."""

    metadata: dict[str, str]


class Said(Generic[T]):
    """One field; its default where the server did not say it."""

    def __init__(self, key: str, read: Callable[[str], T], default: T) -> None:
        self._key, self._read, self._default = key, read, default

    def __get__(self, error: Speaker, owner: Any) -> T:
        value = error.metadata.get(self._key, "")
        return self._read(value) if value else self._default


def text(key: str) -> Said[str]:
    """Read a text; empty by default."""
    return Said(key, str, "")


def texts(key: str) -> Said[tuple[str, ...]]:
    """Read a list of texts; empty by default."""
    return Said(key, lambda value: tuple(value.split(", ")), ())


def number(key: str) -> Said[int]:
    """Read a number; 0 by default."""
    return Said(key, int, 0)


def time(key: str) -> Said[datetime | None]:
    """Read a time; None by default."""
    return Said(key, lambda ms: datetime.fromtimestamp(int(ms) / 1000, UTC), None)
