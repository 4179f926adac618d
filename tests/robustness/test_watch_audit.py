"""What the audit trail keeps of watches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.v1 import stock_pb2
from holdfast_server.ledger.audit import AuditKind
from tests.robustness.archiving import (
    audited,
    records,
)
from tests.serving import metadata


async def test_a_watch_is_archived_from_its_start_to_its_end(tmp_path: Path) -> None:
    async with audited(tmp_path) as (server, archive):
        sku = await server.put(3)
        watch = server.stock.Watch(stock_pb2.WatchRequest(skus=[sku]), metadata=metadata("watcher"))
        told: Any = await watch.read()
        changed = []
        for _ in range(3):
            await server.adjust(sku, 1)
            changed.append((await watch.read()).through_sequence)
        watch.cancel()
        began, further, ended = await records(archive, 4)
        assert (began.kind, began.principal) == (AuditKind.WATCH, "watcher")
        assert began.asked == [[sku], 1, None]
        assert (began.sequence, began.answered) == (
            told.through_sequence,
            [told.through_sequence, 1],
        )
        assert (further.kind, further.id) == (AuditKind.WATCH_TOLD, began.id)
        assert further.answered[1::2] == changed
        assert began.time_ms <= further.answered[0] <= further.answered[4] <= ended.time_ms
        assert (ended.kind, ended.id) == (AuditKind.WATCH_END, began.id)
        assert ended.answered[0] == changed[-1]


async def test_what_a_watch_was_told_is_let_go_while_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_server.rpc.watch_notes.TOLD_MS_MAX", 0)
    async with audited(tmp_path) as (server, archive):
        sku = await server.put(3)
        watch = server.stock.Watch(stock_pb2.WatchRequest(skus=[sku]))
        await watch.read()
        for _ in range(2):
            await server.adjust(sku, 1)
            await watch.read()
        kinds = [record.kind for record in await records(archive, 4)]
        assert kinds == [AuditKind.WATCH, AuditKind.WATCH_TOLD, AuditKind.WATCH_TOLD]
        watch.cancel()
