"""The state machine as text tables, on every host of the kernel and on the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.contract.agreement import Trial
from tests.contract.steps import Arguments, operation, words_of
from tests.contract.tables import Scenario, Step, scenarios
from tests.hosts import RETENTION_MS, START_MS, Host

SCENARIOS = scenarios()


def batches(steps: list[Step]) -> Iterator[list[Step]]:
    """Yield the steps that are decided together."""
    batch: list[Step] = []
    for step in steps:
        if batch and not step.joins:
            yield batch
            batch = []
        batch.append(step)
    yield batch


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_table(all_hosts: Mapping[str, Host], scenario: Scenario) -> None:
    steps = [step for step in scenario.steps if step.words[0] != "terms"]
    terms = [Arguments(step.words) for step in scenario.steps if step.words[0] == "terms"]
    trial = Trial(
        all_hosts,
        hold_budget=sum(term.number("budget") for term in terms),
        retention_ms=sum(term.number("retention") for term in terms) or RETENTION_MS,
    )
    now_ms = START_MS
    for batch in batches(steps):
        if batch[0].words[0] == "wait":
            now_ms += int(batch[0].words[1])
            continue
        swept = batch[0].words[0] == "sweep"
        operations = [] if swept else [operation(step.words, step.number) for step in batch]
        outcomes = trial.step(operations, now_ms)
        for step, asked, outcome in zip(batch, operations, outcomes, strict=False):
            said = words_of(asked, outcome)
            assert said == step.expected, f"{scenario.table}.txt:{step.number}"
    trial.end()


def test_titles_are_unique() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert sorted(set(names)) == sorted(names)
