"""The SDK against a running server: one suite for both clients, alone and coalesced."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from holdfast import (
    AsyncClient,
    ChannelQuotaExceeded,
    Client,
    ClientClosed,
    Context,
    EndedReason,
    EntryKind,
    ExceedsHold,
    HoldBudgetExceeded,
    InvalidArgument,
    LateCommit,
    LifetimeExceeded,
    NotOwner,
    OutOfStock,
    ReservationCommitted,
    ReservationExpired,
    ReservationIdReused,
    ReservationReleased,
    ReservationState,
    ReservationSuperseded,
    ResumeTokenExpired,
    RetryPolicy,
    Row,
    Source,
    StaleQuantity,
    StockChanged,
    StockLost,
    Unauthenticated,
    UnknownReservation,
    UnknownSku,
    Unreachable,
)
from tests.serving import Serving, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELD, COMMITTED = ReservationState.HELD, ReservationState.COMMITTED
RELEASED, EXPIRED = ReservationState.RELEASED, ReservationState.EXPIRED


class Threaded:
    """A Client, or its Hold, whose methods run in threads: one suite then serves both clients."""

    def __init__(self, blocking: Any) -> None:
        self._blocking = blocking

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._blocking, name)
        if not callable(member):
            return member
        if name == "hold":
            return lambda *given, **options: Threaded(member(*given, **options))
        if inspect.isgeneratorfunction(member):
            return lambda *given, **options: _listed(lambda: [*member(*given, **options)])
        return lambda *given, **options: asyncio.to_thread(member, *given, **options)

    async def __aenter__(self) -> Threaded:
        await asyncio.to_thread(self._blocking.__enter__)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._blocking.__exit__, kind, error, traceback)


async def _listed(generate: Callable[[], list[Any]]) -> AsyncIterator[Any]:
    for one in await asyncio.to_thread(generate):
        yield one


CLIENTS: dict[str, Callable[..., Any]] = {
    "coalesced": AsyncClient,
    "alone": lambda *given, **options: AsyncClient(*given, coalesce=False, **options),
    "threaded": lambda *given, **options: Threaded(Client(*given, **options)),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    async with serving(data=str(tmp_path_factory.mktemp("data")), durability="memory") as running:
        yield running


@pytest.fixture(params=CLIENTS)
def new_client(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return CLIENTS[request.param]


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: Serving, new_client: Callable[..., Any]) -> AsyncIterator[Any]:
    async with new_client(server.target, principal="me", timeout=10.0) as connected:
        yield connected


def unique() -> str:
    return uuid4().hex[:16]


async def item(client: Any, units: int = 10, **policy: Any) -> str:
    """Make an item with some units in stock, and return its SKU."""
    sku = unique()
    await client.put_item(sku, **policy)
    if units:
        await client.adjust_stock(sku, units)
    return sku


async def held_of(client: Any, sku: str) -> int:
    (level,) = (await client.get_stock(sku)).levels
    return int(level.held)


# ---- Stock ----


async def test_a_reservation_lives_from_reserve_to_commit(client: Any) -> None:
    sku, me = await item(client), Context("agent", "session", rationale="asked for two")
    reserved = await client.reserve([(sku, 1), (sku, 1)], ttl=5, context=me)
    record = reserved.reservation
    assert [tuple(line) for line in record.lines] == [(sku, 2, 0, "")]
    assert (record.state, record.principal, record.context) == (HELD, "me", me)
    assert (record.expires_at - record.created_at).total_seconds() == 5
    assert [(level.sku, level.held, level.available) for level in reserved.levels] == [(sku, 2, 8)]
    assert (reserved.replayed, reserved.sequence) == (False, record.sequence)

    committed = await client.commit(record.reservation_id, order_ref="o-1")
    ended = committed.reservation
    assert (ended.state, ended.ended_reason) == (COMMITTED, EndedReason.COMMITTED)
    assert (ended.order_ref, ended.late) == ("o-1", False)
    assert ended.ended_at is not None
    assert ended.ended_at.tzinfo is not None
    assert committed.levels[0].committed == 2
    assert await client.get_reservation(record.reservation_id) == ended


async def test_a_partial_commit_gives_the_rest_back(client: Any) -> None:
    sku, other = await item(client), await item(client)
    reserved = await client.reserve([(sku, 3), (other, 1)])
    committed = await client.commit(reserved.reservation.reservation_id, [(sku, 2)])
    assert {line.sku: line.quantity for line in committed.reservation.lines} == {sku: 2, other: 0}
    assert await held_of(client, other) == 0


async def test_a_release_gives_back_what_it_names(client: Any) -> None:
    sku = await item(client)
    reservation_id = (await client.reserve([(sku, 3)])).reservation.reservation_id
    part = await client.release(reservation_id, [(sku, 1)])
    assert (part.reservation.state, part.levels[0].held) == (HELD, 2)
    rest = await client.release(reservation_id)
    assert (rest.reservation.state, rest.levels[0].held) == (RELEASED, 0)
    assert (await client.release(reservation_id)).replayed


async def test_an_extend_moves_the_expiry_and_never_back(client: Any) -> None:
    sku = await item(client)
    record = (await client.reserve(sku, ttl=5)).reservation
    longer = await client.extend(record.reservation_id, 60)
    assert longer.reservation.expires_at > record.expires_at
    shorter = await client.extend(record.reservation_id, 1)
    assert (shorter.replayed, shorter.reservation) == (True, longer.reservation)


async def test_the_same_id_is_the_same_reservation(client: Any) -> None:
    sku, reservation_id = await item(client), unique()
    first = await client.reserve([(sku, 2)], reservation_id=reservation_id)
    again = await client.reserve([(sku, 2)], reservation_id=reservation_id)
    assert (first.replayed, again.replayed) == (False, True)
    assert first.reservation == again.reservation
    with pytest.raises(ReservationIdReused) as caught:
        await client.reserve([(sku, 3)], reservation_id=reservation_id)
    assert caught.value.id == reservation_id


async def test_stock_is_read_in_the_order_asked(client: Any) -> None:
    first, second, none = await item(client, 5), await item(client, 6), unique()
    stock = await client.get_stock([second, none, first])
    assert [level.available for level in stock.levels] == [6, 5]
    assert stock.by_sku[first].available == 5
    assert stock.missing_skus == (none,)
    assert (stock.source, stock.staleness) == (Source.STORE, 0.0)


async def test_sold_out_raises_what_could_be_had(client: Any) -> None:
    plenty, scarce = await item(client), await item(client, 3)
    held = (await client.reserve([(scarce, 1)], ttl=30)).reservation
    with pytest.raises(OutOfStock) as caught:
        await client.reserve([(plenty, 1), (scarce, 5)], reservation_id="refused")
    (line,) = caught.value.lines
    assert (line.sku, line.location, line.requested, line.available) == (scarce, "", 5, 2)
    assert line.next_expiry_at == held.expires_at
    assert {level.sku for level in caught.value.levels} == {plenty, scarce}
    assert (caught.value.reason, caught.value.idempotency_key) == ("OUT_OF_STOCK", "refused")
    assert caught.value.sequence > 0
    assert await held_of(client, plenty) == 0


async def test_a_part_may_be_taken_instead(client: Any) -> None:
    sku = await item(client, 3)
    reserved = await client.reserve([(sku, 5)], allow_partial=True)
    assert reserved.reservation.lines[0].quantity == 3


async def test_units_beyond_stock_are_marked(client: Any) -> None:
    sku = await item(client, 3, oversell_limit=5)
    reserved = await client.reserve([(sku, 5)], allow_backorder=True)
    assert reserved.reservation.lines[0].backordered == 2


async def test_a_change_since_it_was_read_is_refused(client: Any) -> None:
    sku = await item(client)
    seen = await client.get_stock(sku)
    await client.adjust_stock(sku, 1)
    with pytest.raises(StockChanged) as caught:
        await client.reserve(sku, if_sequence=seen.sequence)
    assert caught.value.levels[0].available == 11
    reserved = await client.reserve(sku, if_sequence=caught.value.sequence)
    await client.adjust_stock(sku, 1)
    with pytest.raises(StockChanged):
        await client.commit(reserved.reservation.reservation_id, if_sequence=reserved.sequence)


async def test_a_channel_sells_within_its_quota(client: Any) -> None:
    sku = await item(client, channels={"web": 2})
    with pytest.raises(ChannelQuotaExceeded) as caught:
        await client.reserve([(sku, 3)], context=Context(channel="web"))
    assert caught.value.lines[0].available == 2
    await client.reserve([(sku, 3)], context=Context(channel="app"))


async def test_a_recount_can_take_a_hold_away(client: Any) -> None:
    sku = await item(client, 5)
    reserved = await client.reserve([(sku, 5)])
    await client.set_stock(sku, 0)
    with pytest.raises(StockLost) as caught:
        await client.commit(reserved.reservation.reservation_id)
    assert caught.value.lines[0].sku == sku


async def test_one_reservation_takes_the_place_of_another(client: Any) -> None:
    sku = await item(client, 2)
    old = (await client.reserve([(sku, 2)])).reservation.reservation_id
    new = (await client.reserve([(sku, 1)], replaces=old)).reservation.reservation_id
    with pytest.raises(ReservationSuperseded) as caught:
        await client.commit(old)
    assert (caught.value.reservation_id, caught.value.replaced_by) == (old, new)


# ---- What can go wrong ----


async def test_what_does_not_exist_is_named(client: Any) -> None:
    none, sku = unique(), await item(client)
    with pytest.raises(UnknownSku) as unknown:
        await client.reserve([(sku, 1), (none, 1)])
    assert unknown.value.skus == (none,)
    with pytest.raises(UnknownReservation) as caught:
        await client.commit(none)
    assert (caught.value.reservation_id, caught.value.idempotency_key) == (none, none)
    with pytest.raises(UnknownSku):
        await client.get_item(none)


async def test_a_bad_argument_is_named_with_its_limit(client: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await client.reserve([("A", 1), ("B", 0)], ttl=0)
    limits = dict(caught.value.violations)
    assert limits.keys() == {"lines[1].quantity", "ttl"}
    assert "0.1 s" in limits["ttl"]


async def test_more_than_was_held_is_refused(client: Any) -> None:
    sku = await item(client)
    reservation_id = (await client.reserve([(sku, 2)])).reservation.reservation_id
    with pytest.raises(ExceedsHold) as caught:
        await client.commit(reservation_id, [(sku, 3)])
    error = caught.value
    assert (error.sku, error.location, error.requested, error.held) == (sku, "", 3, 2)


async def test_an_end_is_told_with_its_time(client: Any) -> None:
    sku = await item(client)
    reservation_id = (await client.reserve(sku)).reservation.reservation_id
    ended = (await client.commit(reservation_id, order_ref="o-2")).reservation
    with pytest.raises(ReservationCommitted) as caught:
        await client.release(reservation_id)
    assert (caught.value.ended_at, caught.value.order_ref) == (ended.ended_at, "o-2")
    assert caught.value.sequence == ended.sequence


async def test_a_hold_that_ran_out_cannot_be_committed(client: Any, server: Serving) -> None:
    sku = await item(client)
    reservation_id = (await client.reserve(sku, ttl=0.1)).reservation.reservation_id
    await server.until_expired(reservation_id)
    with pytest.raises(ReservationExpired) as caught:
        await client.commit(reservation_id)
    assert caught.value.reservation_id == reservation_id


async def test_a_hold_has_a_longest_life(client: Any) -> None:
    sku = await item(client, hold_ttl_default=1, hold_ttl_max=2, hold_lifetime_max=2)
    record = (await client.reserve(sku)).reservation
    await asyncio.sleep(0.01)
    with pytest.raises(LifetimeExceeded) as caught:
        await client.extend(record.reservation_id, 2)
    assert (caught.value.expires_at_most - record.created_at).total_seconds() == 2


async def test_a_reservation_is_its_owners(
    client: Any, server: Serving, new_client: Callable[..., Any]
) -> None:
    sku = await item(client)
    reservation_id = (await client.reserve(sku)).reservation.reservation_id
    async with new_client(server.target, principal="another") as other:
        with pytest.raises(NotOwner):
            await other.commit(reservation_id)
        with pytest.raises(NotOwner):
            await other.get_reservation(reservation_id)


# ---- Holds ----


async def test_a_hold_extends_itself_until_it_is_committed(client: Any, server: Serving) -> None:
    sku = await item(client)
    async with client.hold([(sku, 2)], ttl=0.3) as hold:
        first = hold.reservation.expires_at
        assert hold.levels[0].held == 2
        for _ in range(2):
            start = hold.reservation.sequence + 1
            await server.until(
                lambda entry: entry.id == hold.reservation_id and "EXTEND" in str(entry),
                from_sequence=start,
            )
        committed = await hold.commit(order_ref="o-3")
    assert committed.reservation.state is COMMITTED
    assert committed.reservation.expires_at > first
    assert hold.reservation == committed.reservation
    assert hold.extension_error is None
    assert (await client.get_reservation(hold.reservation_id)).state is COMMITTED


async def test_a_hold_is_given_back_at_the_end_of_its_block(client: Any) -> None:
    sku = await item(client)
    async with client.hold(sku, reservation_id=(reservation_id := unique())) as hold:
        assert await held_of(client, sku) == 1
    assert hold.reservation_id == reservation_id
    assert (await client.get_reservation(reservation_id)).state is RELEASED


async def test_a_hold_is_given_back_when_its_block_fails(client: Any) -> None:
    sku = await item(client)
    with pytest.raises(ZeroDivisionError):
        async with client.hold([(sku, 3)]):
            raise ZeroDivisionError
    assert await held_of(client, sku) == 0


async def test_a_hold_may_be_given_back_early_and_in_part(client: Any) -> None:
    sku = await item(client)
    async with client.hold([(sku, 3)]) as hold:
        await hold.release([(sku, 1)])
        assert (hold.reservation.state, await held_of(client, sku)) == (HELD, 2)
        await hold.release()
        assert (hold.reservation.state, await held_of(client, sku)) == (RELEASED, 0)


async def test_a_refused_hold_does_not_run_its_block(client: Any) -> None:
    sku = await item(client, 1)
    with pytest.raises(OutOfStock):
        async with client.hold([(sku, 2)]):
            pytest.fail("the block ran")


async def test_a_hold_that_was_lost_says_so_at_its_commit(client: Any) -> None:
    sku = await item(client)
    async with client.hold(sku) as hold:
        await client.release(hold.reservation_id)
        with pytest.raises(ReservationReleased):
            await hold.commit()


async def test_a_hold_that_cannot_be_extended_any_more_keeps_why(
    client: Any, server: Serving
) -> None:
    sku = await item(client, hold_ttl_default=0.1, hold_ttl_max=0.3, hold_lifetime_max=0.4)
    async with client.hold(sku, ttl=0.3) as hold:
        await server.until_expired(hold.reservation_id)
        with pytest.raises(ReservationExpired):
            await hold.commit()
    assert isinstance(hold.extension_error, LifetimeExceeded)


async def test_leaving_a_hold_that_ran_out_is_no_error(client: Any, server: Serving) -> None:
    sku = await item(client, hold_ttl_default=0.1, hold_ttl_max=0.3, hold_lifetime_max=0.4)
    async with client.hold(sku, ttl=0.3) as hold:
        await server.until_expired(hold.reservation_id)
    assert (await client.get_reservation(hold.reservation_id)).state is EXPIRED


async def test_a_refused_commit_leaves_the_hold_as_it_was(client: Any) -> None:
    sku = await item(client)
    async with client.hold(sku) as hold:
        await client.adjust_stock(sku, 1)
        with pytest.raises(StockChanged) as caught:
            await hold.commit(if_sequence=hold.reservation.sequence)
        await hold.commit(if_sequence=caught.value.sequence)
    assert hold.reservation.state is COMMITTED


@pytest.mark.parametrize("coalesce", [True, False])
async def test_a_cancelled_block_gives_its_hold_back(server: Serving, coalesce: bool) -> None:
    async with AsyncClient(server.target, coalesce=coalesce) as client:
        sku, entered = await item(client), asyncio.Event()

        async def body() -> None:
            async with client.hold(sku):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(body())
        await entered.wait()
        assert await held_of(client, sku) == 1
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()  # once more, while it gives back
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await held_of(client, sku) == 0


# ---- Inventory and ledger ----


async def test_an_item_keeps_the_policy_that_is_not_given(client: Any) -> None:
    sku = unique()
    first = await client.put_item(sku, title="Lamp", safety_stock=2, late_commit=LateCommit.RETRY)
    assert (first.item.title, first.item.safety_stock, first.replayed) == ("Lamp", 2, False)
    assert (first.item.hold_ttl_default, first.item.hold_lifetime_max) == (10.0, 7200.0)
    second = await client.put_item(sku, safety_stock=3, request_id=(request_id := unique()))
    assert (second.item.title, second.item.safety_stock) == ("Lamp", 3)
    assert second.item.late_commit is LateCommit.RETRY
    assert (await client.put_item(sku, safety_stock=3, request_id=request_id)).replayed


async def test_stock_is_counted_by_location(client: Any) -> None:
    sku = await item(client, 0)
    added = await client.adjust_stock(sku, 5, location="north", reason="delivery", reference="d-1")
    assert (added.location_stock.location, added.location_stock.on_hand) == ("north", 5)
    counted = await client.set_stock(sku, 3, location="south")
    assert (counted.level.on_hand, counted.deficit, counted.replayed) == (8, 0, False)
    detail = await client.get_item(sku)
    assert [tuple(place)[:2] for place in detail.locations] == [("north", 5), ("south", 3)]
    with pytest.raises(StaleQuantity) as caught:
        await client.set_stock(sku, 9, location="north", expected_on_hand=4)
    assert caught.value.on_hand == 5


async def test_items_are_listed_over_all_pages(client: Any) -> None:
    prefix = unique()
    rows = [Row(f"{prefix}-{number:02}", {"": number}) for number in range(7)]
    await client.import_items(rows)
    listed = [entry async for entry in client.list_items(prefix, page_size=3)]
    assert [entry.item.sku for entry in listed] == [row.sku for row in rows]
    assert [entry.level.on_hand for entry in listed] == [*range(7)]


async def test_a_bad_row_of_an_import_fails_alone(client: Any) -> None:
    prefix, request_id = unique(), unique()
    rows = [
        Row(f"{prefix}-good", {"north": 2, "south": 3}, {"title": "Lamp"}, number=10),
        Row(f"{prefix}-bad", {"": -1}, number=11),
        Row(f"{prefix}-none"),
    ]
    imported = await client.import_items(rows, request_id=request_id)
    assert (imported.imported, imported.failed) == (2, 1)
    (error,) = imported.errors
    assert (error.row, error.sku, error.reason) == (11, f"{prefix}-bad", "INVALID_ARGUMENT")
    assert "on_hand" in error.field
    assert (await client.get_item(f"{prefix}-good")).level.on_hand == 5
    head = (await client.get_head())[0].sequence
    assert await client.import_items(rows, request_id=request_id) == imported
    assert (await client.get_head())[0].sequence == head


async def test_a_large_import_goes_in_parts(client: Any) -> None:
    prefix = unique()
    imported = await client.import_items(Row(f"{prefix}-{number}") for number in range(1_203))
    assert (imported.imported, imported.failed) == (1_203, 0)


async def test_rows_may_come_as_they_are_made(server: Serving) -> None:
    prefix = unique()

    async def rows() -> AsyncIterator[Row]:
        for number in range(3):
            await asyncio.sleep(0)
            yield Row(f"{prefix}-{number}")

    async with AsyncClient(server.target) as client:
        assert (await client.import_items(rows())).imported == 3


async def test_an_error_of_the_rows_is_not_lost(client: Any) -> None:
    def rows() -> Any:
        yield Row(unique())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await client.import_items(rows())


async def test_the_ledger_tells_what_happened(client: Any) -> None:
    (before,) = await client.get_head()
    sku = await item(client, 4)
    reservation_id = (await client.reserve([(sku, 2)])).reservation.reservation_id
    await client.commit(reservation_id, order_ref="o-4", context=Context(rationale="paid"))
    start = before.sequence + 1
    found = client.list_entries(sku=sku, from_sequence=start, page_size=2)
    listed = [entry async for entry in found]
    kinds = [EntryKind.PUT_ITEM, EntryKind.ADJUST_STOCK, EntryKind.RESERVE, EntryKind.COMMIT]
    assert [entry.kind for entry in listed] == kinds
    put, added, reserved, committed = listed
    assert put.item is not None
    assert (put.item.sku, put.reservation) == (sku, None)
    assert (added.movements[0].on_hand, added.principal) == (4, "me")
    assert (reserved.reservation.state, reserved.movements[0].held) == (HELD, 2)
    assert (committed.order_ref, committed.context.rationale) == ("o-4", "paid")
    assert (committed.cell, committed.epoch) == (before.cell, before.epoch)
    found = client.list_entries(reservation_id=reservation_id, from_sequence=start)
    assert [entry async for entry in found] == [reserved, committed]


async def test_the_ledger_is_streamed_without_a_gap(client: Any) -> None:
    (before,) = await client.get_head()
    sku = await item(client, 4)
    start = before.sequence + 1
    listed = [entry async for entry in client.list_entries(from_sequence=start)]
    stream = client.stream_entries(start, epoch=before.epoch, follow=False)
    streamed = [entry async for entry in stream]
    assert streamed[: len(listed)] == listed
    assert [entry.sequence for entry in streamed] == [*range(start, start + len(streamed))]
    assert sku in {entry.item.sku for entry in streamed if entry.item}


async def test_a_ledger_of_another_epoch_is_not_followed(client: Any) -> None:
    with pytest.raises(ResumeTokenExpired):
        async for _entry in client.stream_entries(1, epoch=1):
            pass


async def test_a_stream_of_entries_follows(server: Serving) -> None:
    async with AsyncClient(server.target) as client:
        sku = await item(client, 0)
        (head,) = await client.get_head()
        following = client.stream_entries(head.sequence + 1)
        first = asyncio.ensure_future(anext(following))
        added = await client.adjust_stock(sku, 1)
        assert (await first).sequence == added.sequence
        await following.aclose()  # type: ignore[attr-defined]


# ---- Connections ----


async def test_the_last_unit_goes_to_one_caller(client: Any) -> None:
    sku = await item(client, 1)
    calls = [client.reserve(sku) for _ in range(40)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [one for one in answers if isinstance(one, OutOfStock)]
    assert len(refused) == len(answers) - 1
    assert (await client.get_stock(sku)).levels[0].held == 1


async def test_a_server_that_is_not_there_is_unreachable(new_client: Callable[..., Any]) -> None:
    absent = new_client("127.0.0.1:1", connect_timeout=0.2, retry=None)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        await absent.__aenter__()
    async with new_client("127.0.0.1:1", lazy=True, retry=None, timeout=30.0) as client:
        with pytest.raises(Unreachable):
            await client.reserve("A")


async def test_a_closed_client_makes_no_calls(
    server: Serving, new_client: Callable[..., Any]
) -> None:
    async with new_client(server.target) as client:
        await client.get_stock("A")
    for call in (client.get_stock("A"), client.get_head()):
        with pytest.raises(ClientClosed):
            await call


async def test_the_stubs_are_within_reach(client: Any) -> None:
    assert client.stubs is client.stubs
    assert client.metadata == (("holdfast-principal", "me"),)
    assert client.stubs.stock.Watch is not None


@asynccontextmanager
async def guarded(data: Path) -> AsyncIterator[Serving]:
    """Serve to an agent and a connector, whose tokens are their names."""
    principals = data / "principals.toml"
    with principals.open("w") as file:
        for role in ("agent", "connector"):
            digest = sha256(role.encode()).hexdigest()
            file.write(f'[principals.{role}]\ntoken_sha256 = "{digest}"\nrole = "{role}"\n')
    options = {"principals": str(principals), "data": str(data / "store")}
    async with serving(durability="memory", **options) as running:
        yield running


async def test_a_token_says_who_calls(new_client: Callable[..., Any], tmp_path: Path) -> None:
    async with guarded(tmp_path) as server:
        async with new_client(server.target, token="connector") as connector:
            sku = await item(connector)
            # A connector may read stock, but open no Pipeline.
            assert (await connector.get_stock(sku)).levels[0].available == 10
            with pytest.raises(NotOwner):
                await connector.reserve(sku)
        async with new_client(server.target, token="agent") as agent:
            assert (await agent.reserve(sku)).reservation.principal == "agent"
        async with new_client(server.target, token="guessed") as stranger:
            with pytest.raises(Unauthenticated):
                await stranger.reserve(sku)


async def test_a_principal_holds_within_its_budget(
    new_client: Callable[..., Any], tmp_path: Path
) -> None:
    settings = {"hold_budget": 5, "data": str(tmp_path), "durability": "memory"}
    async with serving(**settings) as server, new_client(server.target) as client:
        sku = await item(client)
        await client.reserve([(sku, 3)])
        with pytest.raises(HoldBudgetExceeded) as caught:
            await client.reserve([(sku, 3)])
        assert caught.value.lines[0].available == 2


class Cutter:
    """Passes bytes on to a server, and when told to loses answers and cuts every connection."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._writers: set[asyncio.StreamWriter] = set()
        self.cuts_left = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, far_writer}
        calls = self._pass_on(reader, far_writer, are_answers=False)
        await asyncio.gather(calls, self._pass_on(far_reader, writer, are_answers=True))

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, are_answers: bool
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if are_answers and self.cuts_left:
                    self.cuts_left -= 1
                    self.cut()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def cutting(target: str) -> AsyncIterator[tuple[Cutter, str]]:
    cutter = Cutter(target)
    listener = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    try:
        yield cutter, f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        cutter.cut()
        await listener.wait_closed()


# One cut fails all calls that are under way: without frames that are many failures at once.
PATIENT = RetryPolicy(tokens_max=100)


async def test_each_reserve_counts_once_although_its_answer_was_lost(
    server: Serving, new_client: Callable[..., Any]
) -> None:
    options = {"timeout": 20.0, "retry": PATIENT}
    async with cutting(server.target) as (cutter, target), new_client(target, **options) as client:
        sku = await item(client, 1_000)
        ids: list[str] = []

        async def buy() -> None:
            for _ in range(5):
                answer = await client.reserve(sku, ttl=60)
                ids.append(answer.reservation.reservation_id)
                if len(ids) in {10, 40}:
                    cutter.cuts_left = 1

        await asyncio.gather(*(buy() for _ in range(16)))
        assert cutter.cuts_left == 0
        assert len(set(ids)) == 80
        assert await held_of(client, sku) == 80
