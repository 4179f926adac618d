"""What both ends of a measurement agree on.  Standard library only: clients import it too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from random import Random

ECHO_SERVICE, ECHO_METHOD = "holdfast.bench.Echo", "Echo"
FANOUT_SERVICE, FOLLOW_METHOD, PUBLISH_METHOD = "holdfast.bench.Fanout", "Follow", "Publish"
WARM_S = 0.15


def catalogue(size: int) -> list[str]:
    """Return the SKUs of a catalogue."""
    return [f"SKU-{number:06d}" for number in range(size)]


def drawn(skus: Sequence[str]) -> Iterator[str]:
    """Yield SKUs evenly at random, the same ones in every run, without end."""
    return cycle(Random(7).choices(skus, k=max(50_000, len(skus))))
