"""What the store of a run was, as it tells itself: its kind, version, and what durability costs."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

SETTINGS = (
    "appendonly",
    "appendfsync",
    "save",
    "maxmemory",
    "maxmemory-policy",
    "io-threads",
)
ASK_S_MAX = 5.0


async def store_settings(url: str) -> dict[str, Any] | None:
    """Return the kind, version and configuration of a store; None when it does not tell.

    It is asked by name for what figures depend on, of which nothing is secret.
    """
    client = Redis.from_url(url, socket_timeout=ASK_S_MAX, decode_responses=True)
    try:
        told: dict[str, Any] = await client.info("server")
        configured = await client.config_get(*SETTINGS)
    except (RedisError, OSError):
        return None
    finally:
        await client.aclose()
    is_valkey = "valkey_version" in told
    return {
        "kind": "valkey" if is_valkey else "redis",
        "version": told["valkey_version" if is_valkey else "redis_version"],
        "config": {name: configured.get(name) for name in SETTINGS},
    }
