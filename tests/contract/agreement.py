"""Hosts of the kernel and the oracle, side by side: where they differ, which is a bug of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from holdfast_server import model
from holdfast_server.kernel.records import US, decode_item, decode_place, decode_reservation
from holdfast_server.model import (
    BatchResult,
    Code,
    Item,
    LedgerEntry,
    LocationStock,
    Operation,
    Reservation,
)
from tests.contract.oracle import Oracle
from tests.hosts import RETENTION_MS, Host, State, execute


class View(NamedTuple):
    """What a cell knows, as values."""

    sequence: int
    items: dict[str, Item]
    places: dict[tuple[str, str], LocationStock]
    budgets: dict[str, int]
    reservations: dict[str, Reservation]
    requests: set[str]
    expiry: dict[str, int]
    ended: list[tuple[int, list[str]]]
    fields: set[str]
    ledger: list[LedgerEntry]


def view_of(state: State) -> View:
    """Return what a host has written as values."""
    items, places, budgets = {}, {}, {}
    for field, row in ((field.decode(), row) for field, row in state.items.items()):
        sku, separator, location = field.partition(US)
        if not separator:
            items[sku] = decode_item(sku, row)
        elif sku:
            places[sku, location] = decode_place(location, row)
        else:
            budgets[location] = int.from_bytes(row, "little", signed=True)
    holds = {id_.decode(): record for id_, record in state.holds.items()}
    return View(
        state.sequence,
        items,
        places,
        budgets,
        {id_: decode_reservation(id_, raw) for id_, raw in holds.items() if id_[0] != "~"},
        {id_[1:] for id_ in holds if id_[0] == "~"},
        {id_.decode(): ms for id_, ms in state.expiry.items()},
        [(ms, [id_.decode() for id_ in ids]) for ms, ids in state.ended],
        {field.decode() for field in state.fields},
        state.ledger,
    )


def view_of_oracle(oracle: Oracle) -> View:
    places = {
        (sku, location): LocationStock(location, p.on_hand, p.held, p.committed, p.revision)
        for (sku, location), p in oracle.places.items()
    }
    live = [claim for claim in oracle.claims.values() if claim.state is model.State.HELD]
    return View(
        oracle.sequence,
        {sku: item.item() for sku, item in oracle.items.items()},
        places,
        dict(oracle.budgets),
        {id_: claim.record() for id_, claim in oracle.claims.items()},
        set(oracle.requests),
        {claim.id: claim.expires_ms for claim in live},
        oracle.endings,
        set(oracle.items) | {f"{sku}{US}{location}" for sku, location in places},
        oracle.ledger,
    )


def comparable(result: BatchResult) -> BatchResult:
    """Return a result without the wording of what was invalid: its field is the contract."""
    return result._replace(outcomes=[_worded(outcome) for outcome in result.outcomes])


def _worded(outcome: Any) -> Any:
    is_invalid = outcome.code == Code.INVALID
    return outcome._replace(detail=outcome.detail[:1]) if is_invalid else outcome


class Trial:
    """One history on every host and on the oracle."""

    def __init__(
        self, hosts: Mapping[str, Host], *, hold_budget: int = 0, retention_ms: int = RETENTION_MS
    ) -> None:
        self.hosts = hosts
        self.oracle = Oracle(hold_budget=hold_budget, retention_ms=retention_ms)
        for host in hosts.values():
            host.reset()
            host.hold_budget, host.retention_ms = hold_budget, retention_ms

    def step(self, operations: Sequence[Operation], now_ms: int) -> list[Any]:
        """Decide a batch everywhere and return the outcomes, in which all must be as the oracle."""
        expected = comparable(self.oracle.execute(operations, now_ms=now_ms))
        for name, host in self.hosts.items():
            assert comparable(execute(host, operations, now_ms=now_ms)) == expected, name
        return expected.outcomes

    def end(self) -> None:
        """Compare all that was written: with the oracle as values, among hosts byte for byte."""
        states = {name: host.state() for name, host in self.hosts.items()}
        expected = view_of_oracle(self.oracle)
        for name, state in states.items():
            found = view_of(state)
            for part in View._fields:
                assert getattr(found, part) == getattr(expected, part), (name, part)
        first, *others = states.values()
        assert all(other == first for other in others)
        assert_ledger_explains(expected)


def assert_ledger_explains(view: View) -> None:
    """The ledger is gapless, and its movements add up to every counter."""
    assert [entry.sequence for entry in view.ledger] == list(range(1, view.sequence + 1))
    totals: Counter[tuple[str, str, str]] = Counter()
    for entry in view.ledger:
        for sku, location, *deltas in entry.movements:
            names = ("on_hand", "held", "committed", "backordered")
            for name, delta in zip(names, deltas, strict=True):
                totals[sku, "", name] += delta
                if location:
                    totals[sku, location, name] += delta
    for sku, item in view.items.items():
        for name in ("on_hand", "held", "committed", "backordered"):
            assert totals[sku, "", name] == getattr(item.level, name), (sku, name)
    for (sku, location), place in view.places.items():
        for name in ("on_hand", "held", "committed"):
            assert totals[sku, location, name] == getattr(place, name), (sku, location, name)
