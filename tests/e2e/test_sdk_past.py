"""The past in both clients: levels, explanations and decisions of a server with an archive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from holdfast import EntryKind, ResumeTokenExpired, StockTerm, UnknownReservation
from tests.serving import Serving, serving, unique

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    data = str(tmp_path_factory.mktemp("data"))
    async with serving(data=data, durability="memory", archive="sqlite") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: Serving, new_client: Callable[..., Any]) -> AsyncIterator[Any]:
    async with new_client(server.target, principal="me", timeout=10.0) as connected:
        yield connected


async def test_a_client_looks_back(server: Serving, client: Any) -> None:
    sku, name = await server.put(5, safety_stock=1), unique()
    held = await client.reserve([(sku, 2)], reservation_id=name, ttl=60)
    sold = await client.commit(name)
    then = await client.replay_stock([sku, "no such"], sequence=held.sequence)
    assert (then.levels, then.missing_skus) == (held.levels, ("no such",))
    now = await client.replay_stock(sku, time=sold.levels[0].as_of)
    assert now.levels[0].committed == 2
    explained = await client.explain_stock(sku)
    terms = {term.term: term for term in explained.terms}
    assert explained.level.available == 2
    assert terms[StockTerm.HELD].changes == ()
    (change,) = terms[StockTerm.COMMITTED].changes
    assert (change.kind, change.id, change.units) == (EntryKind.COMMIT, name, 2)
    reserved, committed = await client.replay_decision(name)
    assert (reserved.entry.reservation, committed.entry.kind) == (
        held.reservation,
        EntryKind.COMMIT,
    )
    assert (reserved.items[0].safety_stock, reserved.seen[0].available) == (1, 4)
    assert reserved.reproduced
    assert committed.reproduced


async def test_a_client_is_told_what_was_never_there(server: Serving, client: Any) -> None:
    with pytest.raises(UnknownReservation):
        await client.replay_decision(query_id=unique())
    with pytest.raises(ResumeTokenExpired):
        await client.replay_stock("a", sequence=2**40)


NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "moment", [{}, {"sequence": 1, "time": NOON}, {"time": NOON.replace(tzinfo=None)}]
)
async def test_a_moment_is_one_thing(client: Any, moment: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"moment|time zone"):
        await client.replay_stock("a", **moment)


@pytest.mark.parametrize("subject", [{}, {"reservation_id": "a", "query_id": "b"}])
async def test_a_subject_is_one_thing(client: Any, subject: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="give one of them"):
        await client.replay_decision(**subject)
