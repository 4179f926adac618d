"""Proofs of the ledger, from the files of its Merkle log."""

from __future__ import annotations

import asyncio

from holdfast.v1 import ledger_pb2 as pb
from holdfast_server.errors import ResumeTokenExpired, StoreUnavailable, Unimplemented
from holdfast_server.ledger.checkpoint import BadNote
from holdfast_server.ledger.log_reader import LogDamaged, LogReader, NotInLog
from holdfast_server.rpc.arguments import Arguments

UNREADABLE = (LogDamaged, BadNote, OSError)


class Proofs:
    """Answers what is proved; the process that answers need not be the one that keeps the log."""

    def __init__(self, log: LogReader, cell: int) -> None:
        self._log, self._cell = log, cell

    async def put_root(self, head: pb.CellHead) -> None:
        """Fill in the newest tree, if there is one that can be read: GetProof tells why not."""
        try:
            newest = await asyncio.to_thread(self._log.head)
        except UNREADABLE:
            return
        if newest is not None and newest[0].size:
            head.tree_size, head.root_hash = newest[0].size, newest[0].root

    async def prove(self, request: pb.GetProofRequest) -> pb.GetProofResponse:
        """Answer GetProof.  Raises Unimplemented where no log is kept."""
        check = Arguments()
        if request.cell != self._cell:
            check.bad("cell", f"must be {self._cell}: the server has no other")
        for field in ("sequence", "tree_size", "old_tree_size"):
            check.sequence(field, getattr(request, field))
        if 0 < request.tree_size < request.old_tree_size:
            check.bad("old_tree_size", f"must be at most tree_size, {request.tree_size}")
        check.done()
        try:
            found = await asyncio.to_thread(
                self._log.proof, request.sequence, request.tree_size, request.old_tree_size
            )
        except NotInLog as fault:
            raise ResumeTokenExpired(str(fault)) from fault
        except UNREADABLE as fault:
            raise StoreUnavailable(f"the log cannot be read: {fault}") from fault
        if found is None:
            raise Unimplemented("GetProof is not served: the server keeps no Merkle log")
        return pb.GetProofResponse(
            tree_size=found.size,
            root_hash=found.root,
            leaf_index=found.leaf_index,
            leaf=found.leaf,
            inclusion=found.inclusion,
            consistency=found.consistency,
            checkpoint=found.note.decode(),
        )
