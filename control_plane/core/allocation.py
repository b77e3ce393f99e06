"""How much of an allowance to lend, and how much to ask back: equal time to exhaustion. Integers only; pure.

Every holder's slice would last the same time, a share of what remains: slices shrink as the allowance runs out, at most
half of what was free is ever lent ahead of need, and when an allowance is only a few calls per host, each call borrows
exactly what it needs (central mode). Source: the sizing rule that MATRIXX's adaptive quota management and guided
self-scheduling share; measured beside other policies in the simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TERM_MS_MIN = 2_000
TERM_MS_MAX = 60_000
ENTER_CENTRAL = 2
LEAVE_CENTRAL = 3
PREFETCH_CALLS = 8
"""What a host without any history gets beyond what it needs, in typical calls."""


@dataclass(frozen=True, slots=True)
class Want:
    """What one agent asks for: the least that helps, how fast it has been reserving, and what one call takes."""

    need: int
    demand_per_min: int = 0
    typical: int = 0


@dataclass(frozen=True, slots=True)
class Crowd:
    """Everybody who has lately asked for slices of an allowance, the one who asks now included.

    Attributes:
        agents: how many, at least 1.
        demand_per_min: of all together.
        typical: the largest of what one call takes, over all.
        central: whether slices are at present lent call by call.
    """

    agents: int
    demand_per_min: int
    typical: int
    central: bool = False


@dataclass(frozen=True, slots=True)
class Slice:
    """What to lend. ``central``: for one call only, to be returned as soon as it has settled."""

    amount: int
    central: bool


def slice_of(available: int, want: Want, crowd: Crowd) -> Slice | None:
    """The slice to lend out of ``available``; ``None`` if what is needed is not there, or nothing is to be lent ahead.

    Never more than is available; beyond the need never more than an equal share of half of it.
    """
    if want.need > available or available <= 0:
        return None
    share = LEAVE_CENTRAL if crowd.central else ENTER_CENTRAL
    if available < share * crowd.agents * crowd.typical:
        return Slice(want.need, central=True) if want.need else None
    ahead = max(want.need, want.demand_per_min * _term_ms(available, crowd.demand_per_min) // 60_000)
    if want.demand_per_min == 0:
        ahead = want.need + PREFETCH_CALLS * want.typical
    amount = max(want.need, min(ahead, available // (2 * crowd.agents)))
    return Slice(amount, central=False) if amount else None


def _term_ms(available: int, demand_per_min: int) -> int:
    """For how long slices should last, so that half of what is available lasts so long for everybody."""
    if demand_per_min == 0:
        return TERM_MS_MAX
    return min(max(available * 60_000 // (2 * demand_per_min), TERM_MS_MIN), TERM_MS_MAX)


def beyond_limit(amount: int, taken: int, slice_amount: int) -> int:
    """How much of a slice lies beyond the limit's own amount, in what the plan allows as overage.

    Args:
        amount: of the limit, without its overage.
        taken: what was posted, debited or lent before this slice.
    """
    return max(0, taken + slice_amount - amount) - max(0, taken - amount)


def wanted_back(need: int, available: int, free_elsewhere: int, holders: int) -> int:
    """How much a recall round should bring: half more than is lacking, or the asker's fair share if that is more."""
    lacking = max(need - max(available, 0), 0)
    fair = (max(available, 0) + free_elsewhere) // (holders + 1)
    return min(max(lacking + (lacking + 1) // 2, fair - max(available, 0)), free_elsewhere)


def keep_shares(free: Mapping[str, int], wanted: int) -> dict[str, int]:
    """Which leases to ask back, and how much each may keep: the largest give first, down to one common level.

    Args:
        free: the unused rest of each lease.
        wanted: how much shall come back together; leases that lie at or below the level are left alone.
    """
    level = _level(sorted(free.values(), reverse=True), wanted)
    return {lease: level for lease, rest in free.items() if rest > level}


def _level(rests: list[int], wanted: int) -> int:
    """The highest level for which ``sum(max(0, rest - level)) >= wanted``; 0 when everything is not enough."""
    total = 0
    for count, rest in enumerate(rests, start=1):
        total += rest
        level = (total - wanted) // count
        following = rests[count] if count < len(rests) else 0
        if level >= following:
            return max(0, level)
    return 0
