"""The only place of the agent that reads clocks and draws randomness."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Protocol

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Everything that an agent does not decide itself: the time, and what must be unlike anything before."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, for showing and for dating events; never for safety."""

    def monotonic_ms(self) -> int:
        """Milliseconds since some fixed moment of this boot of the machine; also counted while it is suspended."""

    def machine_boot(self) -> str:
        """Names this boot of the machine: monotonic instants mean the same only within one."""

    def random_id(self) -> str:
        """96 random bits as text."""


class SystemClock:
    """Real time. Leases are counted on a clock that also runs while the machine is suspended."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, for showing and for dating events; never for safety."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Milliseconds since some fixed moment of this boot of the machine."""
        return time.clock_gettime_ns(_BOOTTIME) // 1_000_000

    def machine_boot(self) -> str:
        """Names this boot of the machine: monotonic instants mean the same only within one."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return ""

    def random_id(self) -> str:
        """96 random bits as text."""
        return secrets.token_hex(12)
