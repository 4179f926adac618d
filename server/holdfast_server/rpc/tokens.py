"""Page tokens: opaque text that holds where the next page starts."""

from __future__ import annotations

import base64

from holdfast_server.rpc.arguments import Arguments


def make(value: str) -> str:
    """Return a token for a value; none for an empty one."""
    return base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")


def read(check: Arguments, field: str, token: str) -> str:
    """Return the value of a token that `make` made, noting one that it did not make."""
    try:
        padded = token + "=" * (-len(token) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except ValueError:
        check.bad(field, "must be a token from an earlier page")
        return ""
