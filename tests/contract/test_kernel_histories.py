"""Random histories: the kernel in Redis, in Valkey and in this process agrees with the oracle.

`HOLDFAST_HISTORIES=5000` runs that many new ones instead of the fixed set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.contract.agreement import Trial
from tests.contract.histories import History, histories, long_history
from tests.hosts import START_MS, Host

FIXED = 250
asked = int(os.environ.get("HOLDFAST_HISTORIES", "0"))
LONG = range(asked // 100 or 6)


def replay(hosts: Mapping[str, Host], history: History) -> None:
    """Run a history on the oracle and on every host, and compare at each step and at the end."""
    trial = Trial(hosts, hold_budget=history.hold_budget, retention_ms=history.retention_ms)
    now_ms = START_MS
    for batch in history.batches:
        now_ms += batch.step_ms
        trial.step(batch.operations, now_ms)
    trial.end()


@pytest.mark.timeout(3600 if asked else 120)
@settings(
    max_examples=asked or FIXED,
    derandomize=not asked,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    # The hosts outlive an example on purpose: a trial empties them first.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=histories)
def test_every_host_decides_a_history_as_the_oracle_does(
    all_hosts: Mapping[str, Host], history: History
) -> None:
    replay(all_hosts, history)


@pytest.mark.parametrize("seed", LONG)
def test_every_host_decides_large_batches_as_the_oracle_does(
    all_hosts: Mapping[str, Host], seed: int
) -> None:
    replay(all_hosts, long_history(seed, batches=60, ids=300))
