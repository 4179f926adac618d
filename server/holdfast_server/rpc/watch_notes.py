"""What the audit trail keeps of a watch: that it began, with what it was told first, and its end.

What it was told in between follows from the ledger: levels are a function of the sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast_server.ledger.audit import AuditKind, AuditRecord
from holdfast_server.ledger.trail import Trail
from holdfast_server.model import Caller, Context
from holdfast_server.watch.hub import Hub
from holdfast_server.watch.watcher import Ending, Update, Watcher

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
        self._levels = 0
        self.is_due = trail is not None

    def tell(self, update: Update) -> None:
        """Take a message that is about to be sent, while `is_due`: until the first is whole."""
        self._levels += len(update.levels)
        if not self._watcher.is_within_parts:
            self._begin(update.through_sequence)

    def end(self) -> None:
        """Note the last sequence that was told, and why the server ended the watch if it did."""
        watcher, told = self._watcher, self._watcher.resumes_at or 0
        if self._trail is None:
            return
        if self.is_due:  # it ended before its first message was whole
            self._begin(told)
        ending = Ending.SLOW_CONSUMER if watcher.is_slow else watcher.ending
        self._note(AuditKind.WATCH_END, told, None, (told, ending.name if ending else ""))

    def _begin(self, told: int) -> None:
        assert self._trail is not None
        self.is_due = False
        self._name = self._trail.query_id()
        self._note(AuditKind.WATCH, told, self._asked, (told, self._levels))

    def _note(self, kind: AuditKind, sequence: int, asked: Any, answered: Any) -> None:
        assert self._trail is not None
        at = (self._watcher.epoch, sequence)
        who = (self._caller.principal, _NO_CONTEXT)
        now_ms = self._hub.now_ms
        self._trail.note_record(
            AuditRecord(kind, now_ms, self._name, 0, *who, *at, asked, answered)
        )
