"""Batches larger than usual, and more overdue holds than one batch may end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from holdfast_server.model import (
    AdjustStock,
    Caller,
    Code,
    Commit,
    Context,
    Line,
    Operation,
    Policy,
    PutItem,
    Release,
    Reserve,
)
from tests.contract.agreement import Trial
from tests.hosts import START_MS, Host

P, Q = Caller("p"), Caller("q")
DUE = 200


def stocked(*skus: str, units: int, **policy: Any) -> list[Operation]:
    made: list[Operation] = []
    for sku in skus:
        made.append(PutItem(f"put-{sku}", P, sku, Policy(**policy), (("web", units),)))
        made.append(AdjustStock(f"add-{sku}", P, sku, units))
    return made


def test_a_batch_of_more_lines_than_one_command_may_have(all_hosts: Mapping[str, Host]) -> None:
    trial = Trial(all_hosts)
    skus = [f"sku-{number}" for number in range(4_500)]
    trial.step(stocked(*skus, units=9), START_MS)
    carts = [
        Reserve(f"h{first}", P, tuple(Line(sku, 2) for sku in skus[first : first + 100]))
        for first in range(0, len(skus), 100)
    ]
    held = trial.step(carts, START_MS)
    assert {outcome.code for outcome in held} == {Code.OK}
    trial.step([Commit(cart.reservation_id, P, cart.lines[:50]) for cart in carts], START_MS)
    trial.end()


def test_a_batch_of_more_holds_than_one_command_may_have(all_hosts: Mapping[str, Host]) -> None:
    trial = Trial(all_hosts, retention_ms=1_000)
    trial.step(stocked("A", units=9_000), START_MS)
    ids = [f"h{number}" for number in range(8_500)]
    trial.step([Reserve(id_, P, (Line("A", 1),)) for id_ in ids], START_MS)
    result = trial.step([Release(id_, P) for id_ in ids], START_MS)
    assert {outcome.code for outcome in result} == {Code.OK}
    trial.step([], START_MS + 1_000)
    trial.step([], START_MS + 1_000)
    trial.end()
    assert not trial.oracle.claims


def test_an_item_has_no_more_than_a_hundred_channels(all_hosts: Mapping[str, Host]) -> None:
    trial = Trial(all_hosts)
    names = [(f"channel-{number}", 1) for number in range(101)]
    put = PutItem("r1", P, "A", channels=tuple(names[:100]))
    swap = PutItem("r2", P, "A", channels=(names[100], (names[0][0], None)))
    more = PutItem("r3", P, "A", channels=(names[0],))
    outcomes = trial.step([put, swap, more], START_MS)
    assert [outcome.code for outcome in outcomes] == [Code.OK, Code.OK, Code.INVALID]
    trial.end()


@pytest.mark.parametrize(("others", "next_expiry_ms"), [(63, START_MS + 9_000), (64, 0)])
def test_the_next_expiry_is_sought_among_the_next_64_holds(
    all_hosts: Mapping[str, Host], others: int, next_expiry_ms: int
) -> None:
    trial = Trial(all_hosts)
    trial.step(stocked("A", "B", units=70), START_MS)
    sooner = [Reserve(f"b{n}", P, (Line("B", 1),), 5_000) for n in range(others)]
    trial.step([*sooner, Reserve("a", P, (Line("A", 70),), 9_000)], START_MS)
    (outcome,) = trial.step([Reserve("new", P, (Line("A", 1),))], START_MS)
    assert [line.next_expiry_ms for line in outcome.detail] == [next_expiry_ms]


def test_holds_that_end_now_do_not_hide_the_next_expiry(all_hosts: Mapping[str, Host]) -> None:
    trial = Trial(all_hosts)
    trial.step(stocked("A", "B", units=70), START_MS)
    due = [Reserve(f"b{n}", P, (Line("B", 1),), 5_000) for n in range(64)]
    trial.step([*due, Reserve("a", P, (Line("A", 70),), 9_000)], START_MS)
    (outcome,) = trial.step([Reserve("new", P, (Line("A", 1),))], START_MS + 5_000)
    assert [line.next_expiry_ms for line in outcome.detail] == [START_MS + 9_000]


def overdue(hosts: Mapping[str, Host], *, hold_budget: int = 0, **policy: Any) -> Trial:
    """Return a cell in which 200 holds of A, of 200 units and of channel `web`, are due at once."""
    trial = Trial(hosts, hold_budget=hold_budget)
    trial.step(stocked("A", units=DUE, **policy), START_MS)
    context = Context(channel="web")
    holds = [Reserve(f"h{n}", P, (Line("A", 1),), 1_000, context) for n in range(DUE)]
    trial.step(holds, START_MS)
    return trial


def codes_until_settled(trial: Trial, operation: Operation) -> list[Code]:
    """Send an operation again as long as the answer is AGAIN, as the engine does."""
    codes: list[Code] = []
    while not codes or codes[-1] is Code.AGAIN:
        (outcome,) = trial.step([operation], START_MS + 1_000)
        codes.append(Code(outcome.code))
    trial.end()
    return codes


AGAIN = [Code.AGAIN] * 3  # 65 holds are ended by each batch of one


def test_units_of_overdue_holds_are_not_yet_sold_out(all_hosts: Mapping[str, Host]) -> None:
    trial = overdue(all_hosts)
    asked = Reserve("new", Q, (Line("A", DUE),))
    assert codes_until_settled(trial, asked) == [*AGAIN, Code.OK]


def test_sold_out_is_said_once_nothing_is_overdue(all_hosts: Mapping[str, Host]) -> None:
    trial = overdue(all_hosts)
    asked = Reserve("new", Q, (Line("A", DUE + 1),))
    assert codes_until_settled(trial, asked) == [*AGAIN, Code.OUT_OF_STOCK]


def test_a_part_is_not_granted_while_the_rest_may_come(all_hosts: Mapping[str, Host]) -> None:
    trial = overdue(all_hosts)
    asked = Reserve("new", Q, (Line("A", DUE + 1),), allow_partial=True)
    assert codes_until_settled(trial, asked) == [*AGAIN, Code.OK]
    assert trial.oracle.claims["new"].units == DUE


def test_nothing_is_promised_beyond_stock_that_is_overdue(all_hosts: Mapping[str, Host]) -> None:
    trial = overdue(all_hosts, oversell_limit=DUE)
    asked = Reserve("new", Q, (Line("A", DUE),), allow_backorder=True)
    assert codes_until_settled(trial, asked) == [*AGAIN, Code.OK]
    assert trial.oracle.items["A"].backordered == 0


def test_overdue_holds_do_not_use_up_a_quota(all_hosts: Mapping[str, Host]) -> None:
    trial = overdue(all_hosts)
    asked = Reserve("new", Q, (Line("A", DUE),), context=Context(channel="web"))
    assert codes_until_settled(trial, asked) == [*AGAIN, Code.OK]


def test_overdue_holds_do_not_use_up_a_budget(all_hosts: Mapping[str, Host]) -> None:
    trial = overdue(all_hosts, hold_budget=DUE)
    asked = Reserve("new", P, (Line("A", DUE),))
    assert codes_until_settled(trial, asked) == [*AGAIN, Code.OK]


def test_what_is_free_is_granted_at_once(all_hosts: Mapping[str, Host]) -> None:
    trial = overdue(all_hosts)
    asked = Reserve("new", Q, (Line("A", 1),))
    assert codes_until_settled(trial, asked) == [Code.OK]


def test_a_late_commit_waits_for_overdue_holds(all_hosts: Mapping[str, Host]) -> None:
    trial = overdue(all_hosts, late_commit=3, oversell_limit=DUE)
    batch: list[Operation] = [Reserve("new", Q, (Line("A", 66),)), Commit("h0", P)]
    outcomes = trial.step(batch, START_MS + 1_000)
    assert [outcome.code for outcome in outcomes] == [Code.OK, Code.AGAIN]
    assert codes_until_settled(trial, Commit("h0", P)) == [Code.OK]
    assert trial.oracle.items["A"].owed == 0


def test_a_late_commit_that_policy_rejects_is_refused_at_once(
    all_hosts: Mapping[str, Host],
) -> None:
    trial = overdue(all_hosts)
    assert codes_until_settled(trial, Commit("h0", P)) == [Code.RESERVATION_EXPIRED]


def test_an_overdue_hold_that_is_not_swept_yet_does_not_commit(
    all_hosts: Mapping[str, Host],
) -> None:
    trial = overdue(all_hosts)
    last = max(trial.oracle.claims)
    assert codes_until_settled(trial, Commit(last, P)) == [Code.RESERVATION_EXPIRED]
