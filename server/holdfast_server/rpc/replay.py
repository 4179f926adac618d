"""ExplainStock, ReplayStock, ReplayDecision: the past, from the archive.

What was acknowledged before a call is part of its answer: the archive is waited for.
"""

from __future__ import annotations

from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.v1 import ledger_pb2 as pb
from holdfast_server.errors import (
    InvalidArgument,
    ResumeTokenExpired,
    StoreUnavailable,
    UnknownReservation,
)
from holdfast_server.ledger import moments
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.archiver import Progress
from holdfast_server.ledger.decisions import decisions_of, queries_of
from holdfast_server.ledger.explaining import TermExplanation, explain
from holdfast_server.ledger.history import History
from holdfast_server.ledger.past import Past
from holdfast_server.model import SKUS_MAX, Head
from holdfast_server.rpc import messages
from holdfast_server.rpc.arguments import Arguments
from holdfast_server.rpc.decisions import decision_message

ARCHIVED_S_MAX = 10.0  # how long a call waits for the archive
TIME_MS_MAX = 253_402_300_800_000  # the year 10000, where timestamps end


class Kept(Protocol):
    """The ledger kept for good, and how far it is."""

    @property
    def archive(self) -> Archive:
        """Return the archive."""
        ...

    @property
    def progress(self) -> Progress:
        """Return how far the ledger is archived."""
        ...

    async def settle(self, timeout_s: float) -> bool:
        """Wait until what was noted beside it is archived, at most for so long; tell if it is."""
        ...


class Replays:
    """Answers about the past of one cell."""

    def __init__(self, history: History, kept: Kept, cell: int) -> None:
        self._history, self._kept, self._cell = history, kept, cell

    async def explain_stock(self, request: pb.ExplainStockRequest) -> pb.ExplainStockResponse:
        """Explain every term of a level.  Raises UnknownSku, ResumeTokenExpired."""
        check = Arguments()
        check.sku("sku", request.sku)
        check.sequence("sequence", request.sequence)
        check.done()
        head = await self._archived(request.sequence)
        found = await explain(self._past, request.sku, request.sequence or head.sequence)
        return pb.ExplainStockResponse(
            level=messages.level(found.level, found.time_ms),
            terms=[_term_message(term) for term in found.terms],
            sequence=found.sequence,
        )

    async def replay_stock(self, request: pb.ReplayStockRequest) -> pb.ReplayStockResponse:
        """Return levels as of a moment.  Raises ResumeTokenExpired."""
        check = Arguments()
        if not 1 <= len(request.skus) <= SKUS_MAX:
            check.bad("skus", f"must number 1 to {SKUS_MAX}, not {len(request.skus)}")
        for index, sku in enumerate(request.skus):
            check.sku(f"skus[{index}]", sku)
        kind = request.WhichOneof("moment")
        if kind is None:
            check.bad("moment", "must be a sequence or a time")
        check.sequence("sequence", request.sequence)
        time_ms = _time_ms(check, request.time)
        check.done()
        skus = tuple(dict.fromkeys(request.skus))
        head = await self._archived(request.sequence)
        if kind == "sequence":
            moment = await moments.at_sequence(self._past, skus, request.sequence)
        elif time_ms > head.now_ms:
            raise ResumeTokenExpired("the time is still to come")
        else:
            moment = await moments.at_time(self._past, skus, time_ms)
        response = pb.ReplayStockResponse(sequence=moment.sequence)
        for sku, level in moment.levels.items():
            if level is None:
                response.missing_skus.append(sku)
            else:
                messages.put_level(response.levels.add(), level, moment.time_ms)
        return response

    async def replay_decision(self, request: pb.ReplayDecisionRequest) -> pb.ReplayDecisionResponse:
        """Return what was decided, and whether it is decided so again.

        Raises UnknownReservation, ResumeTokenExpired.
        """
        check = Arguments()
        kind = request.WhichOneof("subject")
        if kind is None:
            raise InvalidArgument.of(("subject", "must be a reservation_id or a query_id"))
        subject: str = getattr(request, kind)
        check.identifier(kind, subject)
        check.done()
        await self._archived(0)
        if not await self._kept.settle(ARCHIVED_S_MAX):
            raise StoreUnavailable("the archive is behind the audit trail", retry_after_ms=1_000)
        look = queries_of if kind == "query_id" else decisions_of
        found = await look(self._past, subject)
        if not found:
            raise UnknownReservation(f"no such reservation or query: {subject}")
        return pb.ReplayDecisionResponse(
            decisions=[decision_message(each, self._cell) for each in found]
        )

    @property
    def _past(self) -> Past:
        return Past(self._kept.archive)

    async def _archived(self, sequence: int) -> Head:
        """Return the end of the ledger once it is archived, or the sequence that matters is.

        Raises ResumeTokenExpired for one that is still to come, StoreUnavailable.
        """
        head = await self._history.head()
        if sequence > head.sequence:
            raise ResumeTokenExpired(f"the ledger ends at sequence {head.sequence}")
        if not await self._kept.progress.wait(sequence or head.sequence, ARCHIVED_S_MAX):
            raise StoreUnavailable("the archive is behind the ledger", retry_after_ms=1_000)
        return head


def _time_ms(check: Arguments, time: Timestamp) -> int:
    ms = time.seconds * 1000 + time.nanos // 1_000_000
    if not 0 <= ms < TIME_MS_MAX:
        check.bad("time", "must be from the year 1970 to 9999")
    return ms


def _term_message(value: TermExplanation) -> pb.TermExplanation:
    return pb.TermExplanation(
        term=value.term.value,  # type: ignore[arg-type]  # the same numbers, tested
        units=value.units,
        changes=[
            pb.TermChange(
                sequence=change.sequence,
                kind=change.kind.value,  # type: ignore[arg-type]  # the same numbers, tested
                id=change.id,
                units=change.units,
            )
            for change in value.changes
        ],
        earlier_units=value.earlier_units,
    )
