"""The newest levels that a client has heard of, from answers and from watches.

The newest revision of an item wins.  A watch knows which of its levels are of one epoch, and throws
them away together; answers do not say their epoch, so there an older revision that comes much later
is taken for the first of a new one.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from typing import Any, NamedTuple, TypeVar

from holdfast.changes import ServerLoad
from holdfast.errors import Refused
from holdfast.model import StockLevel

ANSWERS_MAX = 10_000  # levels kept of answers; a watch keeps those of what it watches
EPOCH_DOUBT_S = 30.0  # a level this much later, by its server's clock, is not overtaken but undone
LOAD_FRESH_S = 10.0

T = TypeVar("T")
Seen = tuple[StockLevel, float]  # a level, and when it came by the monotonic clock


class KnownLevel(NamedTuple):
    """A level, how many seconds ago it came, and whether a running watch vouches for it."""

    level: StockLevel
    age: float
    is_live: bool


class Feed:
    """The levels of one watch; `is_live` while its stream runs, `is_over` once it is closed."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.is_live = False
        self.is_over = False


class KnownLevels:
    """What one client knows; its watches and calls write here, `view` is for its users."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, Seen] = OrderedDict()
        self._feeds: tuple[Feed, ...] = ()
        self._load, self._min_interval, self._load_until = ServerLoad.NORMAL, 0.0, 0.0
        self._writing = Lock()
        self.view = LevelView(self)

    @property
    def load(self) -> ServerLoad:
        """How loaded the server is, as far as it has said so of late."""
        return self._load if time.monotonic() < self._load_until else ServerLoad.NORMAL

    @property
    def min_interval(self) -> float:
        """The interval in seconds that a loaded server has suggested, 0 where it has not."""
        return self._min_interval if time.monotonic() < self._load_until else 0.0

    def note_load(self, load: ServerLoad, min_interval: float = 0.0) -> None:
        """Take what an answer said of the server's load, and the interval it suggested.

        The trailers of a unary call have the load alone: they leave the interval of the same load.
        """
        if min_interval or load is not self._load:
            self._min_interval = min_interval
        self._load, self._load_until = load, time.monotonic() + LOAD_FRESH_S

    def learn(self, read: Callable[..., T], *message: Any) -> T:
        """Return what `read` makes of a message, and take its levels, a refusal's too."""
        try:
            answer = read(*message)
        except Refused as refused:
            self.note(refused.levels)
            raise
        self.note(answer.levels)  # type: ignore[attr-defined]  # each answer with levels has them there
        return answer

    def note(self, levels: Iterable[StockLevel]) -> None:
        """Take the levels of an answer."""
        now = time.monotonic()
        with self._writing:
            for level in levels:
                self._keep((level, now))

    def attach(self, feed: Feed) -> None:
        """Take a watch in."""
        self._settle()
        with self._writing:
            self._feeds = (*self._feeds, feed)

    def detach(self, feed: Feed) -> None:
        """Let a watch go; its levels are no more than answers from now on.

        It takes no lock: the collector may call it anywhere.
        """
        feed.is_live, feed.is_over = False, True

    def _settle(self) -> None:
        """Keep what watches that are over have told, and forget them."""
        with self._writing:
            over = [feed for feed in self._feeds if feed.is_over]
            self._feeds = tuple(feed for feed in self._feeds if not feed.is_over)
            for feed in over:
                for seen in feed.seen.values():
                    self._keep(seen)

    def _keep(self, seen: Seen) -> None:
        answers, sku = self._answers, seen[0].sku
        known = answers.get(sku)
        if known is None or _replaces(seen[0], known[0]):
            answers[sku] = seen
            answers.move_to_end(sku)
            if len(answers) > ANSWERS_MAX:
                answers.popitem(last=False)

    def forget_answers(self) -> None:
        """Forget the levels of answers: they may be of an epoch that is over."""
        with self._writing:
            self._answers.clear()

    def known(self, sku: str) -> KnownLevel | None:
        """Return the newest level of an item, if there is one."""
        newest, is_live = self._answers.get(sku), False
        for feed in self._feeds:
            if feed.is_over:
                self._settle()
                return self.known(sku)
            seen = feed.seen.get(sku)
            if seen is None:
                continue
            if newest is None or seen[0].revision >= newest[0].revision:
                newest = seen
            is_live |= feed.is_live
        if newest is None:
            return None
        return KnownLevel(newest[0], time.monotonic() - newest[1], is_live)

    def skus(self) -> set[str]:
        """Return every SKU of which something is known."""
        # Copies made in one step: other threads may write.
        return set().union(list(self._answers), *(list(feed.seen) for feed in self._feeds))


def _replaces(level: StockLevel, known: StockLevel) -> bool:
    if level.revision == known.revision:
        return level.as_of >= known.as_of
    if level.revision > known.revision:
        return True
    return (level.as_of - known.as_of).total_seconds() > EPOCH_DOUBT_S


class LevelView(Mapping[str, StockLevel]):
    """The newest levels that a client knows, by SKU, to read without a call.

    They come from its watches, and from the answers to its calls, of which the newest 10,000 are
    kept.  A watch is read by iterating over it, so one that nobody iterates over does not move on
    here either.  A level is what was true when it came; `known` tells how long ago that was.
    """

    def __init__(self, known: KnownLevels) -> None:
        self._known = known

    def __getitem__(self, sku: str) -> StockLevel:
        known = self._known.known(sku)
        if known is None:
            raise KeyError(sku)
        return known.level

    def __contains__(self, sku: object) -> bool:
        return isinstance(sku, str) and self._known.known(sku) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._known.skus())

    def __len__(self) -> int:
        return len(self._known.skus())

    def __repr__(self) -> str:
        return f"<LevelView of {len(self)} items>"

    def known(self, sku: str) -> KnownLevel | None:
        """Return a level with its age and whether a running watch vouches for it, or None."""
        return self._known.known(sku)
