"""What a check says: does the promise hold, over how much, and what broke it."""

from __future__ import annotations

from typing import NamedTuple

VIOLATIONS_MAX = 20


class Verdict(NamedTuple):
    """The answer of one named check; `violations` are the first 20, in order."""

    name: str
    holds: bool
    looked_at: int
    violations: list[str]


class Findings:
    """Collects what one check looks at and what it finds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.looked_at = 0
        self._violations: list[str] = []
        self._count = 0

    def expect(self, holds: bool, violation: str) -> None:
        """Note a violation unless it holds."""
        if not holds:
            self._count += 1
            if self._count <= VIOLATIONS_MAX:
                self._violations.append(violation)

    def verdict(self) -> Verdict:
        """Return what was found."""
        return Verdict(self.name, not self._count, self.looked_at, self._violations)
