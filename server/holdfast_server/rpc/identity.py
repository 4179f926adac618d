"""Who calls: a principal by its bearer token, or in open mode by its own word.

Open mode (no principals file) trusts the `holdfast-principal` metadata, so that ownership works
between callers that trust each other, as on one machine.  With a principals file every call needs
a token; tokens are kept as SHA-256 and compared in constant time.

    [principals.checkout]
    token_sha256 = "9f86d0..."
    role = "agent"            # agent | connector | auditor | operator
"""

from __future__ import annotations

import hmac
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from holdfast_server.config import ConfigError
from holdfast_server.errors import InvalidArgument, NotOwner, Unauthenticated
from holdfast_server.model import Caller

PRINCIPAL = re.compile(r"[A-Za-z0-9._:@/-]{1,128}")
ANONYMOUS = "anonymous"


class Role(Enum):
    """What a principal may do; an operator may do everything."""

    AGENT = "agent"
    CONNECTOR = "connector"
    AUDITOR = "auditor"
    OPERATOR = "operator"


@dataclass(frozen=True)
class Principal:
    """A named caller with its role and the hash of its token."""

    name: str
    role: Role
    token_sha256: str


Metadata = Iterable[tuple[str, str | bytes]] | None


@lru_cache(maxsize=4_096)
def _by_word(name: str | bytes) -> Caller:
    if not isinstance(name, str) or not PRINCIPAL.fullmatch(name):
        raise InvalidArgument.of(
            ("metadata.holdfast-principal", "must be 1 to 128 of [A-Za-z0-9._:@/-]")
        )
    return Caller(name)


class Identities:
    """Tells who calls, and whether it may.  No principals is open mode."""

    def __init__(self, principals: Iterable[Principal] = ()) -> None:
        self._by_hash = {principal.token_sha256: principal for principal in principals}

    @property
    def is_open(self) -> bool:
        """Tell whether callers are taken at their word."""
        return not self._by_hash

    def caller(self, metadata: Metadata, allowed: frozenset[Role]) -> Caller:
        """Return who calls.

        Raises Unauthenticated without a good token, NotOwner when the role does not reach.
        """
        given = dict(metadata or ())
        if self.is_open:
            return _by_word(given.get("holdfast-principal", ANONYMOUS))
        scheme, _, token = str(given.get("authorization", "")).partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("send metadata `authorization: Bearer TOKEN`")
        principal = self._by_token(token)
        if principal.role is not Role.OPERATOR and principal.role not in allowed:
            raise NotOwner(
                f"the role {principal.role.value} of {principal.name} may not call this",
                metadata={"role": principal.role.value},
            )
        return Caller(principal.name, principal.role is Role.OPERATOR)

    def _by_token(self, token: str) -> Principal:
        digest = sha256(token.encode()).hexdigest()
        for known, principal in self._by_hash.items():
            if hmac.compare_digest(known, digest):
                return principal
        raise Unauthenticated("the token is not known")


def load_principals(path: Path) -> list[Principal]:
    """Read a principals file.  Raises ConfigError, naming the entry."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise ConfigError(f"{path}: {fault}") from fault
    entries = content.pop("principals", {})
    if content or not isinstance(entries, dict) or not entries:
        raise ConfigError(f"{path}: must hold tables [principals.NAME] and nothing else")
    return [_principal(path, name, entry) for name, entry in entries.items()]


def _principal(path: Path, name: str, entry: Any) -> Principal:
    where = f"{path}: principals.{name}"
    if not PRINCIPAL.fullmatch(name):
        raise ConfigError(f"{where}: the name must be 1 to 128 of [A-Za-z0-9._:@/-]")
    if not isinstance(entry, dict) or set(entry) != {"token_sha256", "role"}:
        raise ConfigError(f"{where}: must have token_sha256 and role, and nothing else")
    if not re.fullmatch(r"[0-9a-f]{64}", str(entry["token_sha256"])):
        raise ConfigError(f"{where}: token_sha256 must be 64 lower-case hexadecimal digits")
    roles = [role.value for role in Role]
    if entry["role"] not in roles:
        raise ConfigError(f"{where}: role must be one of {', '.join(roles)}")
    return Principal(name, Role(entry["role"]), entry["token_sha256"])
