"""Tokens: how they look, what of them is kept, and when one still holds."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import StrEnum

EXPIRES_IN_HOURS_MAX = 10 * 366 * 24
USES_MAX = 1_000_000
_ID = re.compile(r"[0-9a-f]{12}\Z")
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}\Z")


class Role(StrEnum):
    """What the holder of a token may do: everything, read everything, be an agent, become one, or only send usage, or
    only read the program's metrics."""

    ADMIN = "admin"
    SUPPORT = "support"
    AGENT = "agent"
    JOIN = "join"
    INGEST = "ingest"
    METRICS = "metrics"


_ROLES = {role.value: role for role in Role}


class IssuedRole(StrEnum):
    """Roles that tokens are made for on request; an agent gets its own when it joins."""

    ADMIN = "admin"
    SUPPORT = "support"
    JOIN = "join"
    INGEST = "ingest"
    METRICS = "metrics"


@dataclass(frozen=True)
class Presented:
    """A token as somebody shows it: well-formed, which proves nothing. Never to be logged or stored."""

    role: Role
    token: str
    secret: str

    @property
    def secret_sha256(self) -> bytes:
        """What is stored of the secret; 256 random bits need no slow hash."""
        return hashlib.sha256(self.secret.encode()).digest()


def compose(role: Role, token: str, secret: str) -> str:
    """``alt_<role>_<id>_<secret>``: recognisable to people and to secret scanners."""
    return f"alt_{role.value}_{token}_{secret}"


def parse(text: str) -> Presented | None:
    """The parts of a token, or ``None`` for anything that cannot be one."""
    parts = text.split("_", maxsplit=3)
    if len(parts) != 4 or parts[0] != "alt" or parts[1] not in _ROLES:
        return None
    if not _ID.match(parts[2]) or not _SECRET.match(parts[3]):
        return None
    return Presented(_ROLES[parts[1]], parts[2], parts[3])


def holds(
    presented: Presented, secret_sha256: bytes, role: str, *, expires_at_ms: int | None, revoked: bool, now_ms: int
) -> bool:
    """Whether what is shown is what is kept, and is still good. The secret is compared in constant time."""
    same = hmac.compare_digest(secret_sha256, presented.secret_sha256)
    fresh = not revoked and (expires_at_ms is None or now_ms < expires_at_ms)
    return same and fresh and role == presented.role.value
