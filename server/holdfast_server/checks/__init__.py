"""The named checks: what Holdfast promises, verified from outside."""

from holdfast_server.checks.ends import exactly_one_end
from holdfast_server.checks.invariants import (
    Acknowledged,
    Digest,
    acknowledged_found,
    digest,
    error_changed_nothing,
    ledger_gapless,
    never_oversold,
    replay_equals_state,
)
from holdfast_server.checks.live import check_server
from holdfast_server.checks.verdict import Verdict
from holdfast_server.checks.watching import watch_gapless

__all__ = [
    "Acknowledged",
    "Digest",
    "Verdict",
    "acknowledged_found",
    "check_server",
    "digest",
    "error_changed_nothing",
    "exactly_one_end",
    "ledger_gapless",
    "never_oversold",
    "replay_equals_state",
    "watch_gapless",
]
