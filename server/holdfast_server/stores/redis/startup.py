"""What a store must be and should be, looked at once before serving from it."""

from __future__ import annotations

from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from holdfast_server.errors import StoreUnavailable

REDIS_MIN, VALKEY_MIN = (7, 0), (8, 0)
_PROBE = """#!lua flags=no-writes
return {#struct.pack('<i4', 1), #cmsgpack.pack({1})}"""


class Finding(NamedTuple):
    """Something about the store that is unsafe, or that could not be looked at."""

    is_fatal: bool
    message: str


async def examine(url: str, *, timeout_ms: int = 2_000) -> list[Finding]:
    """Return what is wrong with the store, fatal findings first.  Raises StoreUnavailable."""
    client = Redis.from_url(
        url,
        decode_responses=True,
        retry=None,
        socket_timeout=timeout_ms / 1000,
        socket_connect_timeout=timeout_ms / 1000,
    )
    try:
        info: dict[str, Any] = await client.info()
        findings = [*_version(info), *_role(info), *await _scripting(client)]
        findings += await _settings(client)
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(f"cannot reach the store: {fault}", retry_after_ms=500) from fault
    finally:
        await client.aclose()
    return sorted(findings, key=lambda finding: not finding.is_fatal)


def _version(info: dict[str, Any]) -> list[Finding]:
    # Valkey answers 7.2.4 as redis_version for ever: its own number stands beside it.
    is_valkey = "valkey_version" in info
    name = "Valkey" if is_valkey else "Redis"
    text = str(info["valkey_version"] if is_valkey else info["redis_version"])
    least = VALKEY_MIN if is_valkey else REDIS_MIN
    found = tuple(int(part) for part in text.split(".")[:2])
    if found >= least:
        return []
    wanted = ".".join(map(str, least))
    return [Finding(True, f"{name} {text} is too old: at least {wanted} is needed")]


def _role(info: dict[str, Any]) -> list[Finding]:
    if info.get("role") == "master":
        return []
    return [Finding(True, f"the store is a {info.get('role')}: the master is needed")]


async def _scripting(client: Any) -> list[Finding]:
    try:
        answer = await client.eval(_PROBE, 0)
    except ResponseError as refusal:
        return [Finding(True, f"the store runs no Lua scripts: {refusal}")]
    if answer[0] != 4:
        return [Finding(True, "the store's Lua lacks struct or cmsgpack")]
    return []


async def _settings(client: Any) -> list[Finding]:
    try:
        found: dict[str, str] = await client.config_get(
            "maxmemory-policy", "appendonly", "appendfsync"
        )
    except ResponseError as refusal:
        return [Finding(False, f"cannot see the store's settings: {refusal}")]
    findings = []
    policy = found.get("maxmemory-policy", "noeviction")
    if policy != "noeviction":
        findings.append(
            Finding(False, f"maxmemory-policy is {policy}: it may evict stock; set noeviction")
        )
    if found.get("appendonly") != "yes":
        findings.append(
            Finding(
                False,
                "appendonly is off: a crash of the store loses everything since its last snapshot",
            )
        )
    elif found.get("appendfsync") == "everysec":
        findings.append(
            Finding(
                False,
                "appendfsync is everysec: a crash of the store's machine loses up to "
                "2 s of acknowledged work",
            )
        )
    elif found.get("appendfsync") == "no":
        findings.append(
            Finding(
                False,
                "appendfsync is no: a crash of the store's machine loses what the "
                "system had not written",
            )
        )
    return findings
