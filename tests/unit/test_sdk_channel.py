"""Options of a client: where they come from, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from holdfast import AsyncClient, Client, RetryPolicy
from holdfast.channel import Connection
from holdfast.retry import RetryThrottle, service_config

KINDS = [AsyncClient, Client]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TARGET", "TOKEN", "PRINCIPAL"):
        monkeypatch.delenv(f"HOLDFAST_{name}", raising=False)


@pytest.mark.parametrize("kind", KINDS)
def test_without_options_a_client_is_anonymous_and_local(kind: Any) -> None:
    client = kind()
    assert (client.target, client.metadata) == ("127.0.0.1:7420", ())


@pytest.mark.parametrize("kind", KINDS)
def test_the_environment_says_what_was_not_given(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_TARGET", "there:1")
    monkeypatch.setenv("HOLDFAST_PRINCIPAL", "me")
    monkeypatch.setenv("HOLDFAST_TOKEN", "secret")
    assert kind().target == "there:1"
    assert kind().metadata == (("holdfast-principal", "me"), ("authorization", "Bearer secret"))
    assert kind("here:2", principal="you").target == "here:2"
    assert ("holdfast-principal", "you") in kind("here:2", principal="you").metadata


@pytest.mark.parametrize("option", [{"token": "sécret"}, {"principal": "a\nb"}])
def test_who_calls_must_fit_into_metadata(option: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        AsyncClient(**option)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_option_is_an_error(kind: Any) -> None:
    with pytest.raises(TypeError, match="tokn"):
        kind(tokn="secret")


def test_a_secret_is_in_no_repr() -> None:
    assert "secret" not in repr(Connection.of("", {"token": "secret"}))


def test_grpc_knows_each_channel_argument() -> None:
    (binary,) = Path(grpc.__file__).parent.glob("_cython/cygrpc*.so")
    library = binary.read_bytes()
    for name, _value in Connection.of("", {}).arguments:
        assert name.encode() + b"\0" in library, name


def test_channel_arguments_of_the_user_come_first() -> None:
    given = [("grpc.keepalive_time_ms", 1), ("grpc.other", 2)]
    arguments = dict(Connection.of("", {"channel_arguments": given}).arguments)
    assert (arguments["grpc.keepalive_time_ms"], arguments["grpc.other"]) == (1, 2)
    assert "grpc.keepalive_timeout_ms" in arguments


def test_grpc_repeats_all_calls_but_streams_that_see_to_it_themselves() -> None:
    config = json.loads(service_config(RetryPolicy()))
    streams, others = config["methodConfig"]
    stock = "holdfast.v1.StockService"
    methods = ("Pipeline", "Watch")
    assert streams == {"name": [{"service": stock, "method": method} for method in methods]}
    assert {name["service"].rpartition(".")[2] for name in others["name"]} == {
        "StockService",
        "InventoryService",
        "LedgerService",
    }
    assert others["retryPolicy"] == {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "1.0s",
        "backoffMultiplier": 2.0,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    assert config["retryThrottling"] == {"maxTokens": 100, "tokenRatio": 0.1}


def test_repeating_can_be_turned_off() -> None:
    arguments = dict(Connection.of("", {"retry": None}).arguments)
    assert arguments["grpc.enable_retries"] == 0
    assert "grpc.service_config" not in arguments


def test_the_pause_grows_to_its_limit() -> None:
    policy = RetryPolicy(backoff_min=0.1, backoff_max=0.3, multiplier=2)
    for attempts, expected in [(1, 0.1), (2, 0.2), (3, 0.3), (9, 0.3)]:
        pauses = [policy.backoff(attempts) for _ in range(50)]
        assert all(expected * 0.8 <= pause <= expected * 1.2 for pause in pauses)
        assert len(set(pauses)) > 1


def test_the_pause_of_a_stream_is_anything_up_to_its_backoff() -> None:
    policy = RetryPolicy(backoff_min=0.1, backoff_max=0.3, multiplier=2)
    for attempts, limit in [(1, 0.1), (2, 0.2), (3, 0.3), (10_000_000, 0.3)]:
        pauses = [policy.full_jitter(attempts) for _ in range(200)]
        assert all(0 <= pause <= limit for pause in pauses)
        assert min(pauses) < limit / 4 < limit * 3 / 4 < max(pauses)


def test_attempts_are_bounded() -> None:
    throttle = RetryThrottle(RetryPolicy(attempts_max=3))
    assert [throttle.allows(attempts) for attempts in (1, 2, 3)] == [True, True, False]


def test_a_client_that_mostly_fails_stops_repeating_until_it_succeeds() -> None:
    throttle = RetryThrottle(RetryPolicy(tokens_max=10, token_ratio=0.5))
    for _ in range(4):
        throttle.failed()
    assert throttle.allows(1)
    throttle.failed()
    assert not throttle.allows(1)
    throttle.succeeded()
    assert throttle.allows(1)
