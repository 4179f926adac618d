"""The kernel in this process: its clock, and what it refuses to hand to Lua."""

from __future__ import annotations

from time import time_ns
from typing import Any

import pytest

from holdfast_server.kernel.inprocess import KernelFault, KernelInProcess, Tables
from holdfast_server.model import AdjustStock, Caller, Code, Line, PutItem, Reserve

P = Caller("p")


def codes(result: Any) -> list[Code]:
    return [Code(outcome.code) for outcome in result.outcomes]


def test_a_batch_is_decided_at_the_time_of_this_machine() -> None:
    before_ms = time_ns() // 1_000_000
    result = KernelInProcess().execute([PutItem("r1", P, "A")])
    assert before_ms <= result.now_ms <= time_ns() // 1_000_000


def test_time_never_goes_back() -> None:
    kernel = KernelInProcess()
    kernel.execute([PutItem("r1", P, "A")], now_ms=2_000)
    assert kernel.execute([PutItem("r2", P, "B")], now_ms=1_000).now_ms == 2_000


def test_an_empty_batch_ends_what_is_due() -> None:
    kernel = KernelInProcess()
    hold = Reserve("h1", P, (Line("A", 1),), ttl_ms=100)
    kernel.execute([PutItem("r1", P, "A"), AdjustStock("r2", P, "A", 1), hold], now_ms=1_000)
    assert kernel.execute([], now_ms=1_099).sequence == 3
    assert kernel.execute([], now_ms=1_100).sequence == 4
    assert not kernel.tables.expiry


def test_two_kernels_may_take_turns_on_the_same_tables() -> None:
    tables = Tables()
    first, second = KernelInProcess(tables), KernelInProcess(tables)
    first.execute([PutItem("r1", P, "A")])
    assert codes(second.execute([AdjustStock("r2", P, "A", 1)])) == [Code.OK]
    assert codes(first.execute([Reserve("h1", P, (Line("A", 1),))])) == [Code.OK]
    assert tables.sequence == 3


@pytest.mark.parametrize("value", [[1], {"a": 1}, object()])
def test_a_value_that_lua_has_no_word_for_is_refused(value: object) -> None:
    kernel = KernelInProcess()
    with pytest.raises(KernelFault, match="neither text nor number"):
        kernel.decide([21, 3, value], 1)


def test_ids_that_are_no_utf8_are_refused_before_anything_is_written() -> None:
    kernel = KernelInProcess()
    kernel.execute([PutItem("r1", P, "A")])
    with pytest.raises(KernelFault):
        kernel.decide([8, 8, b"~\xff", "p\x1dA\x1d", "", "A", "default", 1], 1)
    assert kernel.tables.sequence == 1
