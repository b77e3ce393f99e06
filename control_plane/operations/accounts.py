"""One allowance while its row is held: what was charged and lent, and what changes of it."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.core.kinds import counted
from control_plane.core.rates import Pool, Share
from control_plane.store import allowances
from control_plane.store.allowances import Key


@dataclass(slots=True)
class Account:
    """One allowance while its row is held."""

    key: Key
    window_end_ms: int
    posted: int
    direct: int
    outstanding: int
    recalled_at_ms: int
    level: int = 0
    level_at_ms: int = 0
    burst_lent: int = 0
    rate: int = 0
    burst: int = 0
    changed: bool = False
    freed: int = 0

    @property
    def pool(self) -> Pool:
        """Of a rate: what of it is lent, and the bucket of the rest."""
        lent = Share(self.outstanding, self.burst_lent)
        period_ms = counted(self.key.counter).period_ms
        return Pool(self.rate, self.burst, period_ms, lent, self.level, self.level_at_ms)

    @pool.setter
    def pool(self, pool: Pool) -> None:
        self.rate, self.burst = pool.amount, pool.burst
        self.outstanding, self.burst_lent = pool.lent.amount, pool.lent.burst
        self.level, self.level_at_ms = pool.level, pool.at_ms
        self.changed = True

    def available(self, ceiling: int) -> int:
        """What may still be lent; negative after a downgrade."""
        return ceiling - self.posted - self.direct - self.outstanding

    @property
    def taken(self) -> int:
        """What is used up or lent."""
        return self.posted + self.direct + self.outstanding

    def note_shortage(self, now_ms: int) -> None:
        """Somebody was refused, or leases were asked back: capacity that comes back is now worth announcing."""
        self.recalled_at_ms = now_ms
        self.changed = True

    @property
    def row(self) -> allowances.Row:
        """As it is to be written."""
        return allowances.Row(
            self.key,
            self.window_end_ms,
            self.posted,
            self.direct,
            self.outstanding,
            self.recalled_at_ms,
            self.level,
            self.level_at_ms,
            self.burst_lent,
            self.rate,
            self.burst,
        )
