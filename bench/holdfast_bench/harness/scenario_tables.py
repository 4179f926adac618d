"""The tables of a scenario: what is on sale, when sessions start, what an agent does, what breaks.

Every key, default and limit of them is here; those of the scenario itself are in `scenario`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from holdfast_bench.harness.settings import ScenarioError, check_limits, setting, table
from holdfast_bench.harness.thresholds import ThresholdError, parse
from holdfast_server.model import LINES_MAX, UNITS_MAX

RATE_MAX = 1_000_000.0  # starts a second
SESSIONS_MAX = 100_000
DAY_S = 86_400.0
SHARES_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Catalogue:
    """What is on sale, and what is asked for."""

    skus: int = setting(1, "items on sale", low=1, high=1_000_000)
    units: int = setting(1_000, "units of each item at the start", low=0, high=UNITS_MAX)
    popularity: str = setting("uniform", "how agents choose", choices=("uniform", "zipf", "hot"))
    zipf_s: float = setting(
        1.1, "exponent of zipf: the item of rank k weighs k**-s", above=0, high=10
    )
    hot_share: float = setting(0.5, "share of choices that fall on the hot item", low=0, high=1)

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True)
class Arrivals:
    """When sessions start.

    constant, poisson: `rate` starts a second.  ramp: from `rate` to `rate_to` within `ramp_s` (0:
    the whole time), then `rate_to`.  steps: `step` more every `step_s`, up to `rate_to`.
    closed: `sessions` agents begin within `ramp_s`, and each starts anew when its session ends.
    """

    kind: str = setting(
        "constant",
        "constant, ramp, steps, poisson (open), or closed",
        choices=("constant", "ramp", "steps", "poisson", "closed"),
    )
    rate: float = setting(100.0, "starts a second", above=0, high=RATE_MAX)
    rate_to: float = setting(1_000.0, "the last rate of ramp and steps", above=0, high=RATE_MAX)
    ramp_s: float = setting(0.0, "seconds a ramp takes, 0 = all", low=0, high=DAY_S)
    step: float = setting(100.0, "starts a second that a step adds", above=0, high=RATE_MAX)
    step_s: float = setting(10.0, "seconds of a step", above=0, high=DAY_S)
    sessions: int = setting(
        0, "open: starts in all, 0 = no limit; closed: agents", low=0, high=100_000_000
    )

    def __post_init__(self) -> None:
        check_limits(self)
        if self.kind == "steps" and self.rate_to < self.rate:
            raise ScenarioError("rate_to", f"must be at least rate, {self.rate:g}")
        if self.kind == "closed" and not 1 <= self.sessions <= SESSIONS_MAX:
            raise ScenarioError("sessions", f"of closed arrivals must be 1 to {SESSIONS_MAX:,}")

    @property
    def is_open(self) -> bool:
        """Whether sessions start by plan, not by the end of others."""
        return self.kind != "closed"


@dataclass(frozen=True)
class Think:
    """How long an agent waits: a distribution.

    constant: `mean_s`.  uniform: `low_s` to `high_s`.  exponential: of `mean_s`.  lognormal: of
    `mean_s` and `sigma`, the deviation of the logarithm.  No wait is longer than `limit_s`.
    """

    kind: str = setting(
        "constant",
        "constant, uniform, exponential or lognormal",
        choices=("constant", "uniform", "exponential", "lognormal"),
    )
    mean_s: float = setting(0.0, "mean wait", low=0, high=3_600)
    low_s: float = setting(0.0, "shortest wait of uniform", low=0, high=3_600)
    high_s: float = setting(0.0, "longest wait of uniform", low=0, high=3_600)
    sigma: float = setting(1.0, "shape of lognormal", above=0, high=5)
    limit_s: float = setting(3_600.0, "no wait is longer", low=0, high=3_600)

    def __post_init__(self) -> None:
        check_limits(self)
        if self.low_s > self.high_s:
            raise ScenarioError("low_s", f"must be at most high_s, {self.high_s:g}")


@dataclass(frozen=True)
class Ends:
    """Shares of how a hold ends; they sum to 1."""

    commit: float = setting(1.0, "paid", low=0, high=1)
    fail: float = setting(0.0, "the payment fails, and the hold is released", low=0, high=1)
    release: float = setting(0.0, "changed its mind instead of paying", low=0, high=1)
    die: float = setting(0.0, "never heard of again: the hold expires", low=0, high=1)

    def __post_init__(self) -> None:
        check_limits(self)
        total = sum(self.shares().values())
        if abs(total - 1) > SHARES_TOLERANCE:
            shares = ", ".join(f"{name} {share:g}" for name, share in self.shares().items())
            raise ScenarioError("shares", f"must sum to 1, not {total:g}: {shares}")

    def shares(self) -> dict[str, float]:
        """Return the share of each end, by its name."""
        return asdict(self)


@dataclass(frozen=True)
class Life:
    """What one agent does."""

    lines: tuple[int, int] = setting(
        (1, 1), "lines of a cart, least and most", low=1, high=LINES_MAX
    )
    quantity: tuple[int, int] = setting(
        (1, 1), "units of a line, least and most", low=1, high=UNITS_MAX
    )
    browse: str = setting(
        "get_stock", "how it looks at the stock first", choices=("get_stock", "watch", "none")
    )
    think: Think = field(
        default_factory=Think, metadata=table(Think, "wait between browsing and reserving")
    )
    pay: Think = field(
        default_factory=Think, metadata=table(Think, "wait between reserving and the end")
    )
    ttl_s: float = setting(120.0, "how long it asks to hold", low=0.1, high=DAY_S)
    ends: Ends = field(default_factory=Ends, metadata=table(Ends, "how it ends"))

    def __post_init__(self) -> None:
        check_limits(self)
        for name in ("lines", "quantity"):
            span = getattr(self, name)
            if len(span) != 2 or span[0] > span[1]:
                raise ScenarioError(name, f"must be [least, most], not {list(span)}")


@dataclass(frozen=True)
class Phases:
    """How long it lasts.  Sessions start during warm-up and steady; only steady is measured."""

    warm_up_s: float = setting(10.0, "not measured", low=0, high=3_600)
    steady_s: float = setting(30.0, "measured", above=0, high=DAY_S)
    drain_s: float = setting(30.0, "no more starts; the living may end", low=0, high=3_600)

    def __post_init__(self) -> None:
        check_limits(self)

    @property
    def starting_s(self) -> float:
        """Seconds in which sessions start."""
        return self.warm_up_s + self.steady_s


@dataclass(frozen=True)
class Fault:
    """What is done to the system, once, and when."""

    kind: str = setting(
        "kill", "kill -9, or pause: stopped and let go on", choices=("kill", "pause")
    )
    target: str = setting("store", "whom it strikes", choices=("store", "server"))
    at_s: float = setting(10.0, "seconds into the steady phase", low=0, high=DAY_S)
    for_s: float = setting(5.0, "seconds of a pause", above=0, high=600)

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True)
class Saturate:
    """A search for the highest rate that is sustained: `arrivals.rate`, then step by step."""

    objective: str = setting("p99 < 50ms", "what must hold at a rate for it to be sustained")
    step: float = setting(100.0, "starts a second that a step adds", above=0, high=RATE_MAX)
    rate_max: float = setting(
        10_000.0, "where the search ends at the latest", above=0, high=RATE_MAX
    )
    settle_s: float = setting(2.0, "seconds of a step that are not judged", low=0, high=600)
    step_s: float = setting(10.0, "seconds of a step that are judged", above=0, high=600)

    def __post_init__(self) -> None:
        check_limits(self)
        check_threshold("objective", self.objective)


@dataclass(frozen=True)
class Expectation:
    """A threshold that may end a run: once it fails, `after_s` or later in the steady phase."""

    expression: str = setting("", "what is expected of the result")
    abort_on_fail: bool = setting(False, "whether a run that fails it ends at once")
    after_s: float = setting(
        0.0, "seconds of the steady phase before it is judged", low=0, high=DAY_S
    )

    def __post_init__(self) -> None:
        check_limits(self)
        check_threshold("expression", self.expression)
        if self.abort_on_fail and not parse(self.expression).metric.is_live:
            problem = f"is known only when a run is over, and cannot end it: {self.expression!r}"
            raise ScenarioError("expression", problem)
        if self.after_s and not self.abort_on_fail:
            raise ScenarioError("after_s", "is of use only with abort_on_fail = true")


def check_threshold(key: str, expression: str) -> None:
    """Raise ScenarioError for what is not a threshold."""
    try:
        parse(expression)
    except ThresholdError as wrong:
        raise ScenarioError(key, f"is not a threshold: {wrong}") from None
