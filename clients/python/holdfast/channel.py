"""Where the server is, who calls, and how: what both clients make their channel of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypedDict

import grpc

from holdfast.retry import NO_RETRY, RETRY, RetryPolicy, service_config

TARGET_DEFAULT = "127.0.0.1:7420"
RECEIVE_BYTES_MAX = 16 << 20  # what the server sends at most

Metadata = tuple[tuple[str, str], ...]
ChannelArguments = Sequence[tuple[str, Any]]


class ClientOptions(TypedDict, total=False):
    """What a client may be told besides its target; intervals in seconds."""

    principal: str  # who calls, for a server in open mode; default HOLDFAST_PRINCIPAL
    token: str  # the principal's token, for any other server; default HOLDFAST_TOKEN
    timeout: float  # deadline of each call; default 2.0
    connect_timeout: float  # deadline of connecting; default 5.0
    lazy: bool  # connect at the first call; default: where `async with` or `with` starts
    retry: RetryPolicy | None  # None: never repeat a call
    credentials: grpc.ChannelCredentials | None  # for TLS; default: plain text
    channel_arguments: ChannelArguments  # gRPC's own, besides and in place of ours


@dataclass(frozen=True)
class Connection:
    """The options of a client with their defaults, and the channel they make."""

    target: str
    metadata: Metadata = field(repr=False)  # it holds the token
    timeout: float = 2.0
    connect_timeout: float = 5.0
    lazy: bool = False
    retry: RetryPolicy | None = RETRY
    credentials: grpc.ChannelCredentials | None = None
    channel_arguments: ChannelArguments = ()

    @classmethod
    def of(cls, target: str, options: ClientOptions) -> Self:
        """Return the options a client was given, else those of the environment.

        Raises TypeError for an unknown one, ValueError for one that cannot be sent.
        """
        others: dict[str, Any] = dict(options)
        metadata = _metadata(others.pop("principal", ""), others.pop("token", ""))
        return cls(target or _environment("TARGET") or TARGET_DEFAULT, metadata, **others)

    @property
    def policy(self) -> RetryPolicy:
        """When to repeat a call."""
        return self.retry or NO_RETRY

    @property
    def arguments(self) -> list[tuple[str, Any]]:
        """The channel's arguments: gRPC ignores unknown names, so a test checks each."""
        arguments: dict[str, Any] = {
            # Channels of one process would share one connection otherwise.
            "grpc.use_local_subchannel_pool": 1,
            "grpc.keepalive_time_ms": 30_000,
            "grpc.keepalive_timeout_ms": 10_000,
            "grpc.keepalive_permit_without_calls": 1,
            # By default a client looks for a restarted server after up to two minutes.
            "grpc.initial_reconnect_backoff_ms": 100,
            "grpc.min_reconnect_backoff_ms": 1_000,
            "grpc.max_reconnect_backoff_ms": 2_000,
            "grpc.max_receive_message_length": RECEIVE_BYTES_MAX,
            "grpc.enable_retries": int(self.policy.attempts_max > 1),
        }
        if self.policy.attempts_max > 1:
            arguments["grpc.service_config"] = service_config(self.policy)
        return list({**arguments, **dict(self.channel_arguments)}.items())

    def open_async(self) -> grpc.aio.Channel:
        """Return a channel for the running event loop; it connects when it is used."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, options=self.arguments)
        return grpc.aio.secure_channel(self.target, self.credentials, options=self.arguments)

    def open(self) -> grpc.Channel:
        """Return a channel for threads; it connects when it is used."""
        if self.credentials is None:
            return grpc.insecure_channel(self.target, options=self.arguments)
        return grpc.secure_channel(self.target, self.credentials, options=self.arguments)


def _environment(name: str) -> str:
    return os.environ.get(f"HOLDFAST_{name}", "")


def _metadata(principal: str, token: str) -> Metadata:
    token = token or _environment("TOKEN")
    entries = (
        ("holdfast-principal", principal or _environment("PRINCIPAL")),
        ("authorization", f"Bearer {token}" if token else ""),
    )
    for name, value in entries:
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"the metadata {name} must be printable ASCII")
    return tuple(entry for entry in entries if entry[1])
