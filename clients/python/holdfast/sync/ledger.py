"""LedgerService from threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Unpack

import grpc

from holdfast.ledger import CellHead, EntryFilter, LedgerEntry, Proof, entry_of, head_of, proof_of
from holdfast.past import (
    Decision,
    PastStock,
    StockExplanation,
    decision_of,
    explanation_of,
    past_stock_of,
    replay_decision_request,
    replay_stock_request,
)
from holdfast.sync.calls import Calls
from holdfast.v1 import ledger_pb2 as pb


class Ledger(Calls):
    """The record of every accepted operation: for auditors and read models."""

    def get_head(self, *, timeout: float | None = None) -> tuple[CellHead, ...]:
        """Read where the ledger ends, per cell."""
        answer = self._call(self.stubs.ledger.GetHead, pb.GetHeadRequest(), timeout)
        return tuple(map(head_of, answer.cells))

    def get_proof(
        self,
        sequence: int = 0,
        *,
        tree_size: int = 0,
        old_tree_size: int = 0,
        cell: int = 0,
        timeout: float | None = None,
    ) -> Proof:
        """Prove that an entry is in the ledger's log, and that the log only grew.

        Without `tree_size` it is proved in the newest tree; without a sequence, only that the tree
        continues the one of `old_tree_size`.  Nothing is checked before `Proof.verify` and
        `Proof.verify_since` are called.

        Raises ResumeTokenExpired where there is no tree of that size, or the entry is not in it
        yet; Unimplemented where the server keeps no log.
        """
        request = pb.GetProofRequest(
            cell=cell, sequence=sequence, tree_size=tree_size, old_tree_size=old_tree_size
        )
        return proof_of(self._call(self.stubs.ledger.GetProof, request, timeout))

    def list_entries(
        self, *, timeout: float | None = None, **wanted: Unpack[EntryFilter]
    ) -> Iterator[LedgerEntry]:
        """Yield entries in order, fetching page by page; `timeout` is a page's.

        Raises ResumeTokenExpired where the ledger no longer reaches back that far.
        """
        request = pb.ListEntriesRequest(**wanted)
        while True:
            page = self._call(self.stubs.ledger.ListEntries, request, timeout)
            for entry in page.entries:
                yield entry_of(entry)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def stream_entries(
        self, from_sequence: int = 0, *, epoch: int | None = None, follow: bool = True
    ) -> Iterator[LedgerEntry]:
        """Yield every entry from a sequence on, in order and without a gap, then new ones.

        With `follow` false it ends where the ledger ended when the call came.  It has no deadline.

        Raises ResumeTokenExpired where the ledger does not reach back that far, or has another
        epoch than `epoch`; SlowConsumer.
        """
        request = pb.StreamEntriesRequest(from_sequence=from_sequence, epoch=epoch, follow=follow)
        call = self.stubs.ledger.StreamEntries(request, metadata=self.metadata)
        try:
            for message in call:
                for entry in message.entries:
                    yield entry_of(entry)
        except grpc.RpcError as error:
            raise self._error_of(error) from error
        finally:
            call.cancel()

    def explain_stock(
        self, sku: str, *, sequence: int = 0, timeout: float | None = None
    ) -> StockExplanation:
        """Explain the level of an item: every term of it, with the entries that made it.

        `sequence` 0 is the end of the ledger.  For auditors; the server needs an archive.

        Raises UnknownSku, ResumeTokenExpired, Unimplemented.
        """
        request = pb.ExplainStockRequest(sku=sku, sequence=sequence)
        return explanation_of(self._call(self.stubs.ledger.ExplainStock, request, timeout))

    def replay_stock(
        self,
        skus: str | Iterable[str],
        *,
        sequence: int | None = None,
        time: datetime | None = None,
        timeout: float | None = None,
    ) -> PastStock:
        """Work out levels as of a moment, from the ledger alone: a sequence, or an aware datetime.

        An item that was not there yet is in `missing_skus`.  At a time, holds due by then count as
        expired.

        Raises ResumeTokenExpired for a moment that is not in the ledger, Unimplemented.
        """
        request = replay_stock_request(skus, sequence, time)
        return past_stock_of(self._call(self.stubs.ledger.ReplayStock, request, timeout))

    def replay_decision(
        self, reservation_id: str = "", *, query_id: str = "", timeout: float | None = None
    ) -> tuple[Decision, ...]:
        """Show what an agent saw and what was decided, and decide it again.

        Of a reservation, every decision in order of time, what happened to it afterwards among
        them; of a query, what it answered.

        Raises UnknownReservation, ResumeTokenExpired, Unimplemented.
        """
        request = replay_decision_request(reservation_id, query_id)
        answer = self._call(self.stubs.ledger.ReplayDecision, request, timeout)
        return tuple(map(decision_of, answer.decisions))
