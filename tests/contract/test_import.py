"""InventoryService.Import as its contract promises it, on each kind of store."""

from __future__ import annotations

import pytest

from holdfast.v1 import inventory_pb2 as inventory
from tests.serving import HELD, Serving, unique

pytestmark = pytest.mark.asyncio(loop_scope="module")


def row(number: int, sku: str, *, safety_stock: int = 0, **counts: int) -> inventory.ImportRow:
    return inventory.ImportRow(
        row=number,
        item=inventory.Item(sku=sku, safety_stock=safety_stock),
        stock=[
            inventory.ImportStock(location=location, on_hand=on_hand)
            for location, on_hand in counts.items()
        ],
    )


async def test_an_import_loads_every_row_of_every_message(server: Serving) -> None:
    prefix, request_id = unique("import-"), unique()
    messages = [
        inventory.ImportRequest(
            request_id=request_id,
            rows=[
                row(n, f"{prefix}{n}", safety_stock=1, north=n, south=2) for n in (first, first + 1)
            ],
        )
        for first in (1, 3)
    ]
    answer = await server.inventory.Import(iter(messages))
    assert (answer.imported, answer.failed, list(answer.errors)) == (4, 0, [])
    assert answer.sequence == (await server.head()).sequence
    page = await server.inventory.ListItems(inventory.ListItemsRequest(sku_prefix=prefix))
    assert [entry.level.on_hand for entry in page.entries] == [3, 4, 5, 6]
    assert {entry.item.safety_stock for entry in page.entries} == {1}


async def test_an_import_sent_again_changes_nothing(server: Serving) -> None:
    sku = unique("import-")
    request = inventory.ImportRequest(request_id=unique(), rows=[row(1, sku, default=5)])
    await server.inventory.Import(iter([request]))
    await server.reserve(sku, 2)
    await server.adjust(sku, -1)
    head = await server.head()
    again = await server.inventory.Import(iter([request]))
    assert (again.imported, again.failed) == (1, 0)
    assert (await server.head()).sequence == head.sequence
    assert (await server.level(sku)).on_hand == 4


async def test_an_imported_row_sent_with_other_content_fails_alone(server: Serving) -> None:
    sku, other, request_id = unique("import-"), unique("import-"), unique()
    first = inventory.ImportRequest(request_id=request_id, rows=[row(1, sku, default=5)])
    await server.inventory.Import(iter([first]))
    changed = [row(1, sku, default=6), row(2, other, default=1)]
    second = inventory.ImportRequest(request_id=request_id, rows=changed)
    answer = await server.inventory.Import(iter([second]))
    assert (answer.imported, answer.failed) == (1, 1)
    (error,) = answer.errors
    assert (error.row, error.sku, error.reason) == (1, sku, "RESERVATION_ID_REUSED")
    assert (await server.level(sku)).on_hand == 5


async def test_an_import_of_nothing_is_answered(server: Serving) -> None:
    answer = await server.inventory.Import(iter([]))
    assert (answer.imported, answer.failed) == (0, 0)


async def test_a_hold_survives_an_import_of_its_item(server: Serving) -> None:
    sku = await server.put(5)
    name = (await server.reserve(sku, 3)).reservation.reservation_id
    request = inventory.ImportRequest(request_id=unique(), rows=[row(1, sku, default=4)])
    await server.inventory.Import(iter([request]))
    assert (await server.reservation(name)).state == HELD
    level = await server.level(sku)
    assert (level.on_hand, level.held, level.available) == (4, 3, 1)
