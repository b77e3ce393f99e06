"""Time in the world: one true clock, the control plane's view of it, and hosts whose clocks step and drift."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

from trio.testing import MockClock

BEGIN_MS = 1_800_000_000_000 - 1_800_000_000_000 % 3_600_000


class Time:
    """True time: milliseconds since 1970, as virtual time passes."""

    def __init__(self, clock: MockClock, begin_ms: int) -> None:
        self._clock = clock
        self._begin_ms = begin_ms
        self._held_ms = 0

    def now_ms(self) -> int:
        """Now."""
        return self._held_ms or self._begin_ms + round(self._clock.current_time() * 1_000)

    @contextlib.contextmanager
    def one_moment(self) -> Iterator[None]:
        """No time passes inside, and it need not be looked up again and again."""
        self._held_ms = self.now_ms()
        try:
            yield
        finally:
            self._held_ms = 0


class ServerClock:
    """What one replica of the control plane takes for the time; replicas are kept within ``skew_ms`` by NTP."""

    def __init__(self, time: Time, skew_ms: int) -> None:
        self._time = time
        self._skew_ms = skew_ms

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return self._time.now_ms() + self._skew_ms


class HostClock:
    """One host's clocks.

    Attributes:
        rate_ppm: how much faster the monotonic clock runs than true time.
        wall_offset_ms: how far its wall clock is off.
    """

    def __init__(self, time: Time, dice: random.Random, rate_ppm: int) -> None:
        self._time = time
        self._dice = dice
        self.rate_ppm = rate_ppm
        self.wall_offset_ms = 0
        self.reboot()

    def wall_ms(self) -> int:
        """What the host takes for the time."""
        return max(1, self._time.now_ms() + self.wall_offset_ms)

    def monotonic_ms(self) -> int:
        """Since the machine was started."""
        passed = self._time.now_ms() - self._since_ms
        return self._from_ms + passed + passed * self.rate_ppm // 1_000_000

    def machine_boot(self) -> str:
        """Which start of the machine this is."""
        return self._boot

    def random_id(self) -> str:
        """96 random bits."""
        return f"{self._dice.getrandbits(96):024x}"

    def reboot(self) -> None:
        """The machine starts anew: its monotonic clock begins somewhere else."""
        self._since_ms = self._time.now_ms()
        self._from_ms = self._dice.randrange(1_000, 10_000_000)
        self._boot = f"{self._dice.getrandbits(64):016x}"
