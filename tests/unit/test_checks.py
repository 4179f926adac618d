"""Every named check, held against a ledger that keeps its promise and one that breaks it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import ledger_pb2 as pb
from holdfast.v1 import types_pb2 as types
from holdfast_server import checks
from holdfast_server.checks import Acknowledged
from tests.unit.ledgers import START_MS, Ledger, broken, stocked


def listed(sku: str, revision: int, *, deficit: int = 0, **counts: int) -> inventory.ItemEntry:
    level = types.StockLevel(sku=sku, revision=revision, **counts)
    return inventory.ItemEntry(item=inventory.Item(sku=sku), level=level, deficit=deficit)


# never_oversold


def test_grants_up_to_the_last_unit_are_no_oversell() -> None:
    ledger = stocked(5, safety_stock=2)
    ledger.add("RESERVE", "a", "mug held+3")
    ledger.add("COMMIT", "a", "mug held-3 committed+3")
    assert checks.never_oversold(ledger.entries) == ("never_oversold", True, 1, [])


def test_a_unit_beyond_on_hand_is_an_oversell() -> None:
    ledger = stocked(5)
    ledger.add("RESERVE", "a", "mug held+5")
    ledger.add("RESERVE", "b", "mug held+1")
    verdict = checks.never_oversold(ledger.entries)
    assert broken(verdict, "#4 RESERVE b", "mug", "1 too many")
    assert verdict.looked_at == 2


def test_a_unit_of_the_safety_stock_is_an_oversell() -> None:
    ledger = stocked(5, safety_stock=2)
    ledger.add("RESERVE", "a", "mug held+4")
    assert broken(checks.never_oversold(ledger.entries), "#3 RESERVE a", "1 too many")


def test_two_lines_of_one_item_are_judged_together() -> None:
    ledger = stocked(5)
    ledger.add("ADJUST_STOCK", "in-2", "mug@north on_hand+5")
    ledger.add("RESERVE", "a", "mug@main held+5", "mug held+6")
    assert broken(checks.never_oversold(ledger.entries), "#4 RESERVE a: mug:", "1 too many")


def test_a_location_can_be_oversold_while_the_item_is_not() -> None:
    ledger = stocked(5)
    ledger.add("ADJUST_STOCK", "in-2", "mug@north on_hand+5")
    ledger.add("RESERVE", "a", "mug@north held+6")
    assert broken(checks.never_oversold(ledger.entries), "mug at north", "1 too many")


def test_backordered_units_within_the_allowance_are_no_oversell() -> None:
    ledger = stocked(5, oversell_limit=3)
    ledger.add("RESERVE", "a", "mug held+8 backordered+3")
    assert checks.never_oversold(ledger.entries).holds


def test_units_beyond_stock_that_are_not_marked_are_an_oversell() -> None:
    ledger = stocked(5, oversell_limit=3)
    ledger.add("RESERVE", "a", "mug held+8 backordered+2")
    assert broken(checks.never_oversold(ledger.entries), "3 too many, 2 backordered")


def test_backordered_units_beyond_the_allowance_are_an_oversell() -> None:
    ledger = stocked(10, oversell_limit=50, oversell_share=20)
    ledger.add("RESERVE", "a", "mug held+13 backordered+3")
    assert broken(checks.never_oversold(ledger.entries), "3 units beyond stock, allowance 2")


def test_a_backorder_of_an_item_without_allowance_is_an_oversell() -> None:
    ledger = stocked(10)
    ledger.add("RESERVE", "a", "mug@north held+3 backordered+3")
    assert broken(checks.never_oversold(ledger.entries), "allowance 0")


def test_the_policy_in_force_at_the_grant_counts() -> None:
    ledger = stocked(5)
    ledger.add("RESERVE", "a", "mug held+5")
    ledger.put("mug", safety_stock=4)
    assert checks.never_oversold(ledger.entries).holds
    ledger.add("RELEASE", "a", "mug held-5")
    ledger.add("RESERVE", "b", "mug held+2")
    assert broken(checks.never_oversold(ledger.entries), "RESERVE b", "1 too many")


def test_a_recount_below_the_claims_is_a_deficit_and_no_oversell() -> None:
    ledger = stocked(5)
    ledger.add("RESERVE", "a", "mug held+5")
    ledger.add("SET_STOCK", "count", "mug@main on_hand-3")
    ledger.add("COMMIT", "a", "mug held-5 committed+5")
    assert checks.never_oversold(ledger.entries).holds
    ledger.add("RESERVE", "b", "mug held+1")
    assert broken(checks.never_oversold(ledger.entries), "RESERVE b", "4 too many")


def test_a_late_commit_of_units_that_are_gone_is_an_oversell() -> None:
    ledger = stocked(1)
    ledger.add("RESERVE", "a", "mug held+1")
    ledger.add("EXPIRE", "a", "mug held-1")
    ledger.add("RESERVE", "b", "mug held+1")
    ledger.add("COMMIT", "a", "mug committed+1", late=True)
    assert broken(checks.never_oversold(ledger.entries), "#6 COMMIT a", "1 too many")


# exactly_one_end


def test_each_way_to_end_once_is_one_end() -> None:
    ledger = Ledger()
    for name, last in (("a", "COMMIT"), ("b", "RELEASE"), ("c", "EXPIRE")):
        ledger.add("RESERVE", name, "mug held+2")
        ledger.add("EXTEND", name)
        ledger.add(last, name, "mug held-2")
    verdict = checks.exactly_one_end(ledger.entries)
    assert verdict == ("exactly_one_end", True, 3, [])


def test_what_is_left_of_a_partial_release_ends_later() -> None:
    ledger = Ledger()
    ledger.add("RESERVE", "a", "mug held+2")
    ledger.add("RELEASE", "a", "mug held-1", state=types.RESERVATION_STATE_HELD)
    ledger.add("COMMIT", "a", "mug held-1 committed+1")
    assert checks.exactly_one_end(ledger.entries).holds


def test_an_expired_hold_may_be_committed_late_once() -> None:
    ledger = Ledger()
    ledger.add("RESERVE", "a", "mug held+1")
    ledger.add("EXPIRE", "a", "mug held-1")
    ledger.add("COMMIT", "a", "mug committed+1", late=True)
    assert checks.exactly_one_end(ledger.entries).holds
    ledger.add("COMMIT", "a", "mug committed+1", late=True)
    assert broken(checks.exactly_one_end(ledger.entries), "#4 COMMIT a", "was COMMITTED")


@pytest.mark.parametrize("second", ["COMMIT", "RELEASE", "EXPIRE", "EXTEND"])
@pytest.mark.parametrize("first", ["COMMIT", "RELEASE", "EXPIRE"])
def test_a_second_end_is_a_violation(first: str, second: str) -> None:
    ledger = Ledger()
    ledger.add("RESERVE", "a", "mug held+1")
    ledger.add(first, "a", "mug held-1")
    ledger.add(second, "a")
    assert broken(checks.exactly_one_end(ledger.entries), f"#3 {second} a: it was")


def test_a_superseded_hold_can_never_be_committed() -> None:
    ledger = Ledger()
    ledger.add("RESERVE", "a", "mug held+1")
    ledger.add("SUPERSEDE", "a", "mug held-1")
    ledger.add("RESERVE", "b", "mug held+1")
    assert checks.exactly_one_end(ledger.entries).holds
    ledger.add("COMMIT", "a", "mug committed+1", late=True)
    assert broken(checks.exactly_one_end(ledger.entries), "COMMIT a", "was SUPERSEDED")


def test_an_end_without_a_beginning_is_a_violation() -> None:
    ledger = Ledger()
    ledger.add("EXPIRE", "a")
    assert broken(checks.exactly_one_end(ledger.entries), "#1 EXPIRE a: it was unknown")


def test_an_end_that_keeps_units_is_a_violation() -> None:
    ledger = Ledger()
    ledger.add("RESERVE", "a", "mug held+3")
    ledger.add("EXPIRE", "a", "mug held-2")
    assert broken(checks.exactly_one_end(ledger.entries), "still holds 1 of mug")


def test_units_given_back_twice_are_a_violation() -> None:
    ledger = Ledger()
    ledger.add("RESERVE", "a", "mug held+3")
    ledger.add("RELEASE", "a", "mug held-4")
    assert broken(checks.exactly_one_end(ledger.entries), "gave back 1 more of mug")


def test_a_record_that_says_another_state_is_a_violation() -> None:
    ledger = Ledger()
    ledger.add("RESERVE", "a", "mug held+3")
    ledger.add("COMMIT", "a", "mug held-3", state=types.RESERVATION_STATE_EXPIRED)
    assert broken(checks.exactly_one_end(ledger.entries), "does not say COMMITTED")


def test_an_id_lives_again_only_after_retention() -> None:
    ledger = Ledger()
    ledger.add("RESERVE", "a", "mug held+1")
    ledger.add("RELEASE", "a", "mug held-1", at_ms=100)
    ledger.add("RESERVE", "a", "mug held+1", at_ms=5_100)
    assert checks.exactly_one_end(ledger.entries, retention_ms=5_000).holds
    sooner = checks.exactly_one_end(ledger.entries, retention_ms=5_001)
    assert broken(sooner, "#3 RESERVE a", "was RELEASED already")


def test_a_late_commit_is_remembered_for_retention_too() -> None:
    ledger = Ledger()
    ledger.add("RESERVE", "a", "mug held+1")
    ledger.add("EXPIRE", "a", "mug held-1")
    ledger.add("COMMIT", "a", "mug committed+1", late=True, at_ms=900)
    ledger.add("RESERVE", "a", "mug held+1", at_ms=1_899)
    assert broken(checks.exactly_one_end(ledger.entries), "#4 RESERVE a", "was COMMITTED already")
    ledger.entries[-1].time.FromMilliseconds(START_MS + 1_900)
    assert checks.exactly_one_end(ledger.entries).holds


def test_an_id_that_is_held_cannot_be_reserved_again() -> None:
    ledger = Ledger()
    ledger.add("RESERVE", "a", "mug held+1")
    ledger.add("RESERVE", "a", "mug held+1", at_ms=10_000_000)
    assert broken(checks.exactly_one_end(ledger.entries), "was HELD already")


# ledger_gapless


def test_a_ledger_without_a_gap_holds() -> None:
    assert checks.ledger_gapless(stocked(5).entries, head=2) == ("ledger_gapless", True, 2, [])


def test_a_missing_entry_is_a_gap() -> None:
    ledger = stocked(5)
    ledger.add("RESERVE", "a")
    del ledger.entries[1]
    assert broken(checks.ledger_gapless(ledger.entries), "#3 RESERVE a", "#2 should be here")


def test_a_ledger_that_starts_late_is_a_gap() -> None:
    assert broken(checks.ledger_gapless(stocked(5).entries[1:]), "#1 should be here")


def test_a_ledger_that_ends_before_its_head_is_a_gap() -> None:
    assert broken(checks.ledger_gapless(stocked(5).entries, head=3), "head is #3", "read #2")


def test_a_repeated_entry_is_no_sequence() -> None:
    entries = stocked(5).entries
    assert broken(checks.ledger_gapless([*entries, entries[-1]]), "#3 should be here")


def test_an_epoch_that_goes_back_is_a_violation() -> None:
    ledger = stocked(5)
    ledger.entries[1].epoch = 6
    assert broken(checks.ledger_gapless(ledger.entries), "epoch back to 6")


def test_a_time_that_goes_back_is_a_violation() -> None:
    ledger = stocked(5)
    ledger.add("RESERVE", "a", at_ms=-1)
    assert broken(checks.ledger_gapless(ledger.entries), "time back by 1000000 ns")


# replay_equals_state


def sold() -> Ledger:
    ledger = stocked(5, safety_stock=1)
    ledger.add("RESERVE", "a", "mug held+2")
    ledger.add("COMMIT", "a", "mug held-2 committed+2")
    return ledger


def test_a_level_equals_the_sum_of_its_movements() -> None:
    mug = listed("mug", 4, on_hand=5, committed=2, safety_stock=1)
    verdict = checks.replay_equals_state(sold().entries, [mug], head=4)
    assert verdict == ("replay_equals_state", True, 1, [])


def test_a_level_read_earlier_is_compared_at_its_own_revision() -> None:
    mug = listed("mug", 3, on_hand=5, held=2, safety_stock=1)
    assert checks.replay_equals_state(sold().entries, [mug], head=3).holds


@pytest.mark.parametrize("field", ["on_hand", "held", "committed", "safety_stock"])
def test_a_counter_that_differs_from_the_replay_is_a_violation(field: str) -> None:
    counts = {"on_hand": 5, "held": 0, "committed": 2, "safety_stock": 1}
    mug = listed("mug", 4, **{**counts, field: counts[field] + 1})
    verdict = checks.replay_equals_state(sold().entries, [mug], head=4)
    assert broken(verdict, "mug at #4", field)
    assert len(verdict.violations) == 1


def test_a_deficit_that_differs_from_the_replay_is_a_violation() -> None:
    ledger = sold()
    ledger.add("SET_STOCK", "count", "mug@main on_hand-4")
    mug = listed("mug", 5, on_hand=1, committed=2, safety_stock=1, deficit=0)
    verdict = checks.replay_equals_state(ledger.entries, [mug], head=5)
    assert broken(verdict, "deficit 0, by the ledger 1")


def test_a_level_that_missed_an_entry_is_a_violation() -> None:
    mug = listed("mug", 3, on_hand=5, held=2, safety_stock=1)
    verdict = checks.replay_equals_state(sold().entries, [mug], head=4)
    assert broken(verdict, "#4 COMMIT a", "whose state ends at #3")


def test_an_item_that_vanished_is_a_violation() -> None:
    verdict = checks.replay_equals_state(sold().entries, [], head=4)
    assert broken(verdict, "moved mug", "ends at #0")


def test_a_revision_without_its_entry_is_a_violation() -> None:
    mug = listed("mug", 9, on_hand=5, committed=2, safety_stock=1)
    verdict = checks.replay_equals_state(sold().entries, [mug], head=4)
    assert broken(verdict, "no entry #9", "mug")


def test_an_item_that_the_ledger_does_not_know_is_a_violation() -> None:
    ghost = listed("ghost", 4, on_hand=3)
    mug = listed("mug", 4, on_hand=5, committed=2, safety_stock=1)
    verdict = checks.replay_equals_state(sold().entries, [mug, ghost], head=4)
    assert broken(verdict, "ghost at #4: on_hand 3, by the ledger 0")


# acknowledged_found

RESERVED = Acknowledged(pb.ENTRY_KIND_RESERVE, "a", 3, (("mug", 2),))


def acknowledged() -> Ledger:
    ledger = stocked(5)
    ledger.add("RESERVE", "a", "mug held+2", lines=[("mug", 2)])
    return ledger


def test_an_acknowledged_operation_is_found() -> None:
    verdict = checks.acknowledged_found(acknowledged().entries, [RESERVED])
    assert verdict == ("acknowledged_found", True, 1, [])


def test_an_acknowledged_operation_that_is_lost_is_a_violation() -> None:
    entries: Iterable[pb.LedgerEntry] = acknowledged().entries[:2]
    verdict = checks.acknowledged_found(entries, [RESERVED])
    assert broken(verdict, "#3 RESERVE a was told, nothing is there")


@pytest.mark.parametrize(
    "told", [RESERVED._replace(id="b"), RESERVED._replace(kind=pb.ENTRY_KIND_COMMIT)]
)
def test_another_operation_in_its_place_is_a_violation(told: Acknowledged) -> None:
    verdict = checks.acknowledged_found(acknowledged().entries, [told])
    assert broken(verdict, "was told, #3 RESERVE a is there")


def test_other_units_than_acknowledged_are_a_violation() -> None:
    told = RESERVED._replace(lines=(("mug", 3),))
    verdict = checks.acknowledged_found(acknowledged().entries, [told])
    assert broken(verdict, "[('mug', 3)] was told, [('mug', 2)] is there")


# error_changed_nothing


def test_the_same_state_is_no_change() -> None:
    before = checks.digest([listed("mug", 4, on_hand=5)], head=4)
    after = checks.digest([listed("mug", 4, on_hand=5)], head=4)
    assert checks.error_changed_nothing(before, after) == ("error_changed_nothing", True, 1, [])


def test_a_level_that_moved_is_a_change() -> None:
    before = checks.digest([listed("mug", 4, on_hand=5)], head=4)
    after = checks.digest([listed("mug", 4, on_hand=5, held=1)], head=4)
    assert broken(checks.error_changed_nothing(before, after), "mug went from")


def test_a_new_entry_is_a_change() -> None:
    before, after = checks.digest([], head=4), checks.digest([], head=5)
    assert broken(checks.error_changed_nothing(before, after), "from #4 to #5")


def test_an_item_that_came_is_a_change() -> None:
    before, after = checks.digest([], head=4), checks.digest([listed("mug", 4)], head=4)
    assert broken(checks.error_changed_nothing(before, after), "mug went from None")


def test_a_verdict_keeps_the_first_twenty_violations() -> None:
    ledger = Ledger()
    for index in range(25):
        ledger.add("EXPIRE", f"r{index}")
    verdict = checks.exactly_one_end(ledger.entries)
    assert len(verdict.violations) == 20
    assert "r0" in verdict.violations[0]
    assert "r19" in verdict.violations[-1]
