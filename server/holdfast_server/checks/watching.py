"""watch_gapless: what a reader of Watch was told, held against the ledger, message by message."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from holdfast.v1 import ledger_pb2
from holdfast.v1 import stock_pb2 as pb
from holdfast.v1.types_pb2 import StockLevel
from holdfast_server.checks.replay import Replay, ReplayedItem
from holdfast_server.checks.verdict import Findings, Verdict

SNAPSHOT = pb.WATCH_KIND_SNAPSHOT
CHANGES = pb.WATCH_KIND_CHANGES
END = pb.WATCH_KIND_END
_WITH_LEVELS = (SNAPSHOT, CHANGES)

Streams = Iterable[Iterable[pb.WatchResponse]]


def watch_gapless(
    streams: Streams, entries: Iterable[ledger_pb2.LedgerEntry], *, skus: Collection[str] = ()
) -> Verdict:
    """Check that a reader missed nothing, was told nothing twice and nothing false.

    `streams` are all messages of one reader, stream by stream, each resumed with the last token of
    the one before; `entries` one history of the ledger from its first entry to beyond the last
    message; `skus` what was watched, or nothing for all items.

    At every through_sequence the levels told so far are those of the ledger at that entry.  What
    comes twice differs in its signal, which passes with time, or was told before a resume.
    """
    findings = Findings("watch_gapless")
    reader = _Reader(findings, _Books(findings, entries), frozenset(skus))
    for number, stream in enumerate(streams):
        reader.open(number)
        for index, message in enumerate(stream):
            findings.looked_at += 1
            reader.take(f"stream {number} message {index}", message)
    reader.books.finish()
    return findings.verdict()


class _Told(NamedTuple):
    where: str
    level: StockLevel
    stream: int


class _Books:
    """The ledger as of a sequence that moves on, and the levels that wait to be proved by it."""

    def __init__(self, findings: Findings, entries: Iterable[ledger_pb2.LedgerEntry]) -> None:
        self._findings = findings
        self._entries = iter(entries)
        self._next: ledger_pb2.LedgerEntry | None = None
        self._replay = Replay()
        self._due: dict[int, list[_Told]] = {}
        self.sequence = 0
        self.revisions: dict[str, int] = {}
        self.changed: set[str] = set()

    def prove(self, told: _Told) -> None:
        """Compare a level with the ledger at its revision, now or when that is reached."""
        revision = told.level.revision
        if revision > self.sequence:
            self._due.setdefault(revision, []).append(told)
        else:
            self._compare(told)

    def advance(self, through: int) -> None:
        """Go on to a sequence."""
        for entry in self._until(through):
            self._replay.apply(entry)
            touched = {move.sku for move in entry.movements}
            if entry.HasField("item"):
                touched.add(entry.item.sku)
            self.changed |= touched
            self.revisions.update(dict.fromkeys(touched, entry.sequence))
            self.sequence = entry.sequence
            for told in self._due.pop(entry.sequence, ()):
                self._compare(told)

    def _until(self, through: int) -> Iterator[ledger_pb2.LedgerEntry]:
        while entry := self._next or next(self._entries, None):
            self._next = entry
            if entry.sequence > through:
                return
            self._next = None
            yield entry

    def early(self, stream: int) -> Iterator[_Told]:
        """Yield the levels of a stream that are newer than the ledger up to here."""
        for waiting in self._due.values():
            yield from (told for told in waiting if told.stream == stream)

    def finish(self) -> None:
        """Read to the end, so that what the last parts told is compared too."""
        while entry := self._next or next(self._entries, None):
            self._next = entry
            self.advance(entry.sequence)
        for waiting in self._due.values():
            for where, level, _stream in waiting:
                words = f"{where}: {level.sku} at #{level.revision}"
                self._findings.expect(False, f"{words}, which the ledger does not have")

    def _compare(self, told: _Told) -> None:
        where, level, _stream = told
        known = self.revisions.get(level.sku, 0)
        is_newest = known == level.revision
        words = f"{where}: {level.sku} at #{level.revision}"
        self._findings.expect(is_newest, f"{words}, by the ledger #{known}")
        item = self._replay.items.get(level.sku)
        if item is None or not is_newest:
            return
        for name, replayed in _counters(item).items():
            served = getattr(level, name)
            told_so = f"{words}: {name} {served}, by the ledger {replayed}"
            self._findings.expect(served == replayed, told_so)


def _counters(item: ReplayedItem) -> dict[str, int]:
    return {
        "on_hand": item.on_hand,
        "held": item.held,
        "committed": item.committed,
        "safety_stock": item.safety_stock,
        "available": -item.overclaimed,
    }


def _signal(level: StockLevel) -> tuple[int, int, int]:
    return level.pressure, level.advice, level.retry_after.ToMilliseconds()


class _Reader:
    """What a reader knows after each message."""

    def __init__(self, findings: Findings, books: _Books, skus: frozenset[str]) -> None:
        self._findings = findings
        self._skus = skus
        self.books = books
        self._seen: dict[str, int] = {}
        self._sent: dict[str, StockLevel] = {}
        self._through = 0
        self._stream = 0
        self._is_opened = self._is_begun = self._is_told_missing = self._has_ended = False
        self._is_whole = True

    def _expect(self, holds: bool, violation: str) -> None:
        self._findings.expect(holds, violation)

    def open(self, stream: int) -> None:
        """Begin to read another stream, which resumes the one before."""
        self._stream, self._sent = stream, {}
        self._is_opened, self._is_told_missing, self._has_ended = True, False, False

    def take(self, where: str, message: pb.WatchResponse) -> None:
        """Judge the next message."""
        where = f"{where} {pb.WatchKind.Name(message.kind).removeprefix('WATCH_KIND_')}"
        self._expect(not self._has_ended, f"{where}: it comes after the END")
        if message.kind == SNAPSHOT:
            self._restart()
        elif message.kind != END:
            self._expect(self._is_begun, f"{where}: it comes before any SNAPSHOT")
        self._follow(where, message)
        self._read_levels(where, message)
        if message.through_sequence > self._through:
            self._move(where, message)
        self._judge_form(where, message)
        self._judge_missing(where, message)
        self._is_opened = False

    def _restart(self) -> None:
        """Forget what was seen, at the first part of a SNAPSHOT."""
        if self._is_whole or self._is_opened:
            self._seen, self._sent, self._through = {}, {}, 0
            self._is_told_missing = False
        self._is_begun, self._is_whole = True, False

    def _follow(self, where: str, message: pb.WatchResponse) -> None:
        follows = message.from_sequence == self._through
        words = f"from {message.from_sequence}, the last through was {self._through}"
        self._expect(follows, f"{where}: {words}")
        back = f"through {message.through_sequence} lies before {self._through}"
        self._expect(message.through_sequence >= self._through, f"{where}: {back}")

    def _read_levels(self, where: str, message: pb.WatchResponse) -> None:
        names = [level.sku for level in message.levels]
        self._expect(len(set(names)) == len(names), f"{where}: a SKU stands in it twice")
        for level in message.levels:
            is_wanted = not self._skus or level.sku in self._skus
            self._expect(is_wanted, f"{where}: {level.sku} is not watched")
            before = self._sent.get(level.sku)
            if before is not None:
                self._judge_again(where, before, level)
            self.books.prove(_Told(where, level, self._stream))
            self._sent[level.sku] = level
            self._seen[level.sku] = level.revision

    def _judge_again(self, where: str, before: StockLevel, level: StockLevel) -> None:
        words = f"{where}: {level.sku} at #{level.revision}"
        is_back = level.revision < before.revision
        self._expect(not is_back, f"{words} after #{before.revision}")
        is_same = level.revision == before.revision and _signal(level) == _signal(before)
        self._expect(not is_same, f"{words} was sent before")

    def _move(self, where: str, message: pb.WatchResponse) -> None:
        """Compare what has been told with the ledger at the new through_sequence."""
        through = message.through_sequence
        is_back = through < self.books.sequence
        self._expect(not is_back, f"{where}: #{self.books.sequence} was reached before #{through}")
        self.books.advance(through)
        reached = self.books.sequence
        self._expect(reached >= through, f"{where}: the ledger ends at #{reached}, not #{through}")
        for told in self.books.early(self._stream):
            newer = f"{told.level.sku} is at #{told.level.revision}"
            self._expect(False, f"{where}: {newer}, beyond through #{through}")
        if not is_back:
            self._judge_complete(where, through, is_snapshot=message.kind == SNAPSHOT)
        self._through, self._is_whole = through, True
        self.books.changed.clear()

    def _judge_complete(self, where: str, through: int, *, is_snapshot: bool) -> None:
        revisions = self.books.revisions
        due = revisions.keys() if is_snapshot else self.books.changed
        for sku in sorted(due & self._skus if self._skus else due):
            seen, changed = self._seen.get(sku, 0), revisions[sku]
            words = f"{sku} changed at #{changed}, what was told is of #{seen}"
            self._expect(seen == changed, f"{where}: through #{through} without a change: {words}")

    def _judge_form(self, where: str, message: pb.WatchResponse) -> None:
        has_levels = bool(message.levels)
        if message.kind not in _WITH_LEVELS:
            self._expect(not has_levels, f"{where}: it has levels")
            self._expect(not message.conflated_count, f"{where}: it has a conflated_count")
        elif message.kind == CHANGES:
            self._expect(has_levels, f"{where}: it has no levels")
        is_end = message.kind == END
        self._expect(bool(message.end_reason) == is_end, f"{where}: end_reason is for an END")
        self._has_ended = self._has_ended or is_end
        has_place = bool(message.through_sequence) or message.kind not in (SNAPSHOT, END)
        self._expect(bool(message.resume_token) or not has_place, f"{where}: it has no token")

    def _judge_missing(self, where: str, message: pb.WatchResponse) -> None:
        told = set(message.missing_skus)
        due = set() if self._is_told_missing else self._skus - self.books.revisions.keys()
        is_still = message.through_sequence == message.from_sequence
        # A part and a message about nothing but signals look alike: either may be the first.
        is_open = message.kind == END or (message.kind in _WITH_LEVELS and is_still)
        words = f"{where}: missing_skus {sorted(told)}, by the ledger {sorted(due)}"
        self._expect(told == due or (is_open and not told), words)
        self._is_told_missing = self._is_told_missing or bool(told) or not is_open
