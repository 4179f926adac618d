"""LedgerService: the ordered record of every accepted operation, for auditors and read models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from holdfast.v1 import ledger_pb2 as pb
from holdfast.v1 import ledger_pb2_grpc
from holdfast_server.errors import ResumeTokenExpired, Unimplemented
from holdfast_server.ledger.history import History
from holdfast_server.model import Caller, Head, LedgerEntry
from holdfast_server.rpc import tokens
from holdfast_server.rpc.arguments import Arguments
from holdfast_server.rpc.call import AUDITORS, Calls, streaming, unary
from holdfast_server.rpc.entries import entry_message
from holdfast_server.rpc.inventory import PAGE_SIZE_MAX, page_size
from holdfast_server.rpc.proof import Proofs
from holdfast_server.rpc.replay import Replays
from holdfast_server.watch.tail import Tail

ENTRIES_MAX = 256
LOOK_S = 1.0  # how long a stream waits for an entry before it looks whether the ledger is the same
SCAN_MAX = 20_000  # entries looked through for one page of a filtered list


def _is_wanted(entry: LedgerEntry, request: pb.ListEntriesRequest) -> bool:
    if request.reservation_id and entry.id != request.reservation_id:
        return False
    if not request.sku:
        return True
    if entry.item is not None and entry.item.level.sku == request.sku:
        return True
    return any(move.sku == request.sku for move in entry.movements)


def _lost(words: str, head: Head) -> ResumeTokenExpired:
    """Return the error of a reader that cannot go on from where it was: never skip in silence."""
    metadata = {
        "epoch": str(head.epoch),
        "first_sequence": str(head.first_sequence),
        "sequence": str(head.sequence),
    }
    return ResumeTokenExpired(words, metadata=metadata)


def _check_follows(entries: Sequence[LedgerEntry], start: int, began: Head) -> None:
    """Raise ResumeTokenExpired where entries do not follow on what was sent before."""
    first, epoch = entries[0].sequence, entries[-1].epoch
    if epoch > began.epoch:  # history began anew: what follows is not what came before
        raise _lost("the ledger is of another epoch", began._replace(epoch=epoch))
    if first != start:
        here = began._replace(first_sequence=first)
        raise _lost(f"the ledger starts at sequence {first}", here)


class LedgerSources(NamedTuple):
    """What is known of the ledger: all of it, its growth, its proofs, and what it makes again."""

    history: History
    tail: Tail
    proofs: Proofs
    replays: Replays | None


class LedgerServicer(ledger_pb2_grpc.LedgerServiceServicer):
    """Reads of the ledger, beside the decision path."""

    def __init__(self, calls: Calls, sources: LedgerSources, cell: int) -> None:
        self.calls = calls
        self._history, self._tail, self._proofs, self._replays = sources
        self._cell = cell

    def _head_message(self, head: Head) -> pb.CellHead:
        return pb.CellHead(
            cell=self._cell,
            epoch=head.epoch,
            sequence=head.sequence,
            first_sequence=head.first_sequence,
        )

    @unary(AUDITORS)
    async def GetHead(self, request: pb.GetHeadRequest, caller: Caller) -> pb.GetHeadResponse:
        head = self._head_message(await self._history.head())
        await self._proofs.put_root(head)
        return pb.GetHeadResponse(cells=[head])

    @unary(AUDITORS)
    async def ListEntries(
        self, request: pb.ListEntriesRequest, caller: Caller
    ) -> pb.ListEntriesResponse:
        check = Arguments()
        size = page_size(check, request.page_size)
        check.sequence("from_sequence", request.from_sequence)
        check.sequence("through_sequence", request.through_sequence)
        if request.sku:
            check.sku("sku", request.sku)
        if request.reservation_id:
            check.identifier("reservation_id", request.reservation_id)
        token = tokens.read(check, "page_token", request.page_token)
        if not (token.isascii() and (token.isdigit() or not token)):
            check.bad("page_token", "must be a token from an earlier page")
        check.done()
        head = await self._history.head()
        start = int(token) if token else request.from_sequence or head.first_sequence
        if start < head.first_sequence:
            raise _lost(f"the ledger starts at sequence {head.first_sequence}", head)
        last = min(request.through_sequence or head.sequence, head.sequence)
        entries, following = await self._page(request, start, last, size)
        return pb.ListEntriesResponse(
            entries=[entry_message(entry, self._cell) for entry in entries],
            next_page_token=tokens.make(str(following)) if following else "",
            head=pb.Position(epoch=head.epoch, sequence=head.sequence),
        )

    async def _page(
        self, request: pb.ListEntriesRequest, start: int, last: int, size: int
    ) -> tuple[list[LedgerEntry], int]:
        """Return a page of wanted entries and the sequence the next page starts at, or 0."""
        found: list[LedgerEntry] = []
        scan_end = start + SCAN_MAX
        step = PAGE_SIZE_MAX if request.sku or request.reservation_id else size
        while start <= last and start < scan_end:
            entries = await self._history.entries(start, limit=step)
            if not entries:
                return found, 0
            for entry in entries:
                if entry.sequence > last:
                    return found, 0
                if len(found) == size:
                    return found, entry.sequence
                if _is_wanted(entry, request):
                    found.append(entry)
            start = entries[-1].sequence + 1
        return found, start if start <= last else 0

    @streaming(AUDITORS)
    async def StreamEntries(
        self, request: pb.StreamEntriesRequest, caller: Caller
    ) -> AsyncIterator[pb.StreamEntriesResponse]:
        check = Arguments()
        check.sequence("from_sequence", request.from_sequence)
        check.done()
        head = await self._history.head()
        start = request.from_sequence or head.first_sequence
        if request.HasField("epoch") and request.epoch != head.epoch:
            raise _lost("the ledger is of another epoch", head)
        if start > head.sequence + 1:
            raise _lost(f"the ledger ends at sequence {head.sequence}", head)
        if start < head.first_sequence:
            raise _lost(f"the ledger starts at sequence {head.first_sequence}", head)
        while True:
            entries = await self._history.entries(start, limit=ENTRIES_MAX)
            if entries:
                _check_follows(entries, start, head)
                start = entries[-1].sequence + 1
                yield pb.StreamEntriesResponse(
                    entries=[entry_message(entry, self._cell) for entry in entries],
                    through_sequence=start - 1,
                )
            elif request.follow:
                await self._tail.wait_beyond(start - 1, LOOK_S)
                await self._check_history(start, head)
            if not request.follow and start > head.sequence:
                return

    async def _check_history(self, start: int, began: Head) -> None:
        """Raise ResumeTokenExpired where the ledger is not the one a stream began on."""
        now = await self._history.head()
        if now.epoch != began.epoch or now.sequence + 1 < start:
            raise _lost("the ledger is of another epoch, or went back", now)

    @property
    def _replaying(self) -> Replays:
        if self._replays is None:
            raise Unimplemented("this server has no archive to replay from")
        return self._replays

    @unary(AUDITORS)
    async def ExplainStock(
        self, request: pb.ExplainStockRequest, caller: Caller
    ) -> pb.ExplainStockResponse:
        return await self._replaying.explain_stock(request)

    @unary(AUDITORS)
    async def ReplayStock(
        self, request: pb.ReplayStockRequest, caller: Caller
    ) -> pb.ReplayStockResponse:
        return await self._replaying.replay_stock(request)

    @unary(AUDITORS)
    async def ReplayDecision(
        self, request: pb.ReplayDecisionRequest, caller: Caller
    ) -> pb.ReplayDecisionResponse:
        return await self._replaying.replay_decision(request)

    @unary(AUDITORS)
    async def GetProof(self, request: pb.GetProofRequest, caller: Caller) -> pb.GetProofResponse:
        return await self._proofs.prove(request)
