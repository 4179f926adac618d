"""What the audit trail keeps of a watch: its start, what it was told and when, its end.

A message is kept as its time and the sequence that it reached: the levels that it told follow from
these and the ledger.  Many go into one record.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from holdfast_server.ledger.audit import AuditKind, AuditRecord
from holdfast_server.ledger.trail import Trail
from holdfast_server.model import Caller, Context
from holdfast_server.watch.hub import Hub
from holdfast_server.watch.watcher import Ending, Update, Watcher

TOLD_MAX = 64  # messages of a record: 1 kB of memory
TOLD_MS_MAX = 10_000  # from the first message of a record to its last
_NO_CONTEXT = Context()


class WatchNotes:
    """Notes of one watch, or none without a trail."""

    def __init__(
        self,
        trail: Trail | None,
        watcher: Watcher,
        hub: Hub,
        caller: Caller,
        skus: Sequence[str],
    ) -> None:
        self._trail, self._watcher, self._hub, self._caller = trail, watcher, hub, caller
        self._asked = (skus, len(skus), watcher.resumes_at)
        self._name = ""
        self._epoch = watcher.epoch
        self._levels = 0
        self._told = array("q")  # time in ms and sequence by turns
        self.is_kept = trail is not None

    def tell(self, update: Update) -> None:
        """Take a message that is about to be sent, where notes `is_kept`."""
        if not self._name:
            self._levels += len(update.levels)
            if not self._watcher.is_within_parts:
                self._begin(update.through_sequence)
            return
        if self._epoch != self._watcher.epoch:
            self._let_go()  # sequences of another history
        told, now_ms = self._told, self._hub.now_ms
        if update.levels and not self._watcher.is_within_parts:
            told.extend((now_ms, update.through_sequence))
        # A heartbeat, too, lets go what waits, so nothing waits for long.
        if told and (len(told) >= 2 * TOLD_MAX or now_ms - told[0] >= TOLD_MS_MAX):
            self._let_go()

    def end(self) -> None:
        """Note the last sequence that was told, and why the server ended the watch if it did."""
        watcher, told = self._watcher, self._watcher.resumes_at or 0
        if not self.is_kept:
            return
        if not self._name:  # it ended before its first message was whole
            self._begin(told)
        self._let_go()
        ending = Ending.SLOW_CONSUMER if watcher.is_slow else watcher.ending
        self._note(AuditKind.WATCH_END, told, None, (told, ending.name if ending else ""))

    def _begin(self, told: int) -> None:
        assert self._trail is not None
        self._name, self._epoch = self._trail.watch_id(), self._watcher.epoch
        self._note(AuditKind.WATCH, told, self._asked, (told, self._levels))

    def _let_go(self) -> None:
        told, self._told = self._told.tolist(), array("q")
        if told:
            self._note(AuditKind.WATCH_TOLD, told[-1], None, told)
        self._epoch = self._watcher.epoch

    def _note(self, kind: AuditKind, sequence: int, asked: Any, answered: Any) -> None:
        assert self._trail is not None
        at = (self._epoch, sequence)
        who = (self._caller.principal, _NO_CONTEXT)
        now_ms = self._hub.now_ms
        self._trail.note_record(
            AuditRecord(kind, now_ms, self._name, 0, *who, *at, asked, answered)
        )
