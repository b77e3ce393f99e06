"""The only place of the control plane that reads the clock and draws randomness."""

from __future__ import annotations

import secrets
import time
from typing import Protocol


class Clock(Protocol):
    """What tells the time: the system's, or in tests one that is set."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""


class SystemClock:
    """Real time."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000


def random_id() -> str:
    """48 random bits as 12 lowercase hexadecimal digits: the public half of a token."""
    return secrets.token_hex(6)


def random_secret() -> str:
    """256 random bits as 43 letters of base64url: the secret half of a token."""
    return secrets.token_urlsafe(32)
