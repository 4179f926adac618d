"""When to try again, and when to stop trying.

Every call carries an id from its first attempt on, so each may be repeated.  gRPC repeats unary
calls by itself, as the service config tells it; what goes through a stream is repeated by the
coalescer, by the same rules (gRPC proposal A6).
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

SERVICES = ("StockService", "InventoryService", "LedgerService")
JITTER = 0.2
EXPONENT_MAX = 32  # far past any limit, and no float overflows


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how fast to repeat a call that answered UNAVAILABLE; times in seconds.

    A client that fails more than it succeeds stops repeating: each failure takes a token, each
    success gives `token_ratio` back, and nothing is repeated with half of `tokens_max` or fewer.
    The default lets 50 calls that were cut together be repeated.
    """

    attempts_max: int = 4
    backoff_min: float = 0.1
    backoff_max: float = 1.0
    multiplier: float = 2.0
    tokens_max: int = 100
    token_ratio: float = 0.1

    def backoff(self, attempts: int) -> float:
        """Return how long to wait after so many attempts."""
        delay = min(self.backoff_min * self.multiplier ** (attempts - 1), self.backoff_max)
        return delay * random.uniform(1 - JITTER, 1 + JITTER)

    def full_jitter(self, attempts: int) -> float:
        """Return how long to wait before opening a stream anew: anything up to the backoff.

        However many attempts there were; those whom one failure cut off do not come back as one.
        """
        grown = self.backoff_min * self.multiplier ** min(attempts - 1, EXPONENT_MAX)
        return random.uniform(0, min(grown, self.backoff_max))


RETRY = RetryPolicy()
NO_RETRY = RetryPolicy(attempts_max=1)


class RetryThrottle:
    """The tokens of one channel."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._tokens = float(policy.tokens_max)

    def failed(self) -> None:
        """Note a failure."""
        self._tokens = max(0.0, self._tokens - 1)

    def succeeded(self) -> None:
        """Note a success."""
        self._tokens = min(self._policy.tokens_max, self._tokens + self._policy.token_ratio)

    def allows(self, attempts: int) -> bool:
        """Tell whether to try again after so many attempts."""
        return attempts < self._policy.attempts_max and self._tokens > self._policy.tokens_max / 2


def service_config(policy: RetryPolicy) -> str:
    """Return a policy as gRPC wants it; a Pipeline and a Watch see to that themselves."""
    stock = "holdfast.v1.StockService"
    streams = [{"service": stock, "method": method} for method in ("Pipeline", "Watch")]
    repeated: dict[str, Any] = {
        "name": [{"service": f"holdfast.v1.{service}"} for service in SERVICES],
        "retryPolicy": {
            "maxAttempts": policy.attempts_max,
            "initialBackoff": f"{policy.backoff_min}s",
            "maxBackoff": f"{policy.backoff_max}s",
            "backoffMultiplier": policy.multiplier,
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    }
    throttling = {"maxTokens": policy.tokens_max, "tokenRatio": policy.token_ratio}
    return json.dumps(
        {"methodConfig": [{"name": streams}, repeated], "retryThrottling": throttling}
    )
