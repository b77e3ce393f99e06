"""How much of an allowance to lend, and how much to ask back: equal time to exhaustion. Integers only; pure.

Every holder's slice would last the same time, a share of what remains: slices shrink as the allowance runs out, and
where a holder's share is hardly a call or two, each of its calls borrows exactly what it needs (central mode). Source:
the sizing rule that MATRIXX's adaptive quota management and guided self-scheduling share; measured beside other
policies in `docs/comparison.md`, where the constants below come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TERM_MS_MAX = 30_000
"""For how long slices last at most. Longer ones save few messages, for hosts report what was used anyway; and what lies
on hosts that are lost for good is stranded until its window ends."""

ENTER_CENTRAL = 2
LEAVE_CENTRAL = 3
"""Calls that a holder's share must be good for; so many more once somebody borrows call by call."""

PREFETCH_CALLS = 8
"""What the first host gets beyond what it needs, in typical calls."""

SLIVERS_A_CALL = 8
"""Rests smaller than this part of what a call needs are not asked back: their messages cost more than they bring."""

RETRY_MS_MIN = 500
RETRY_MS_MAX = 2_000
"""Bounds of when a call that waits for what may come back asks again."""

ANNOUNCED_PARTS = 64
"""What comes back is announced to everybody only where it is at least this part of what is taken: else it is found by
those who ask again, and a large fleet is not woken for every call that ends."""


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
        central: whether slices are at present lent call by call.
    """

    agents: int
    demand_per_min: int
    central: bool = False


@dataclass(frozen=True, slots=True)
class Slice:
    """What to lend. ``central``: for one call only, to be returned as soon as it has settled."""

    amount: int
    central: bool


def slice_of(available: int, want: Want, crowd: Crowd) -> Slice | None:
    """The slice to lend out of ``available``; ``None`` if what is needed is not there, or nothing is to be lent ahead.

    Never more than is available; beyond the need never more than this holder's share of half of it: by its part of the
    demand, or an equal one if that is more. Where that share is hardly a call or two, one call's worth is lent.
    """
    if want.need > available or available <= 0:
        return None
    share, ahead = _share(available, want, crowd), _ahead(want, crowd)
    calls = LEAVE_CENTRAL if crowd.central else ENTER_CENTRAL
    if ahead < want.need + want.typical or share < calls * want.typical:
        return Slice(want.need, central=True) if want.need else None
    amount = max(want.need, min(ahead, share))
    return Slice(amount, central=False) if amount else None


def _share(available: int, want: Want, crowd: Crowd) -> int:
    """The most that this holder may have beyond its need. Half of what is available is divided by demand, so that all
    slices would last equally long; an equal part of it is never too much."""
    by_demand = available * want.demand_per_min // (2 * crowd.demand_per_min) if crowd.demand_per_min else 0
    share = max(available // (2 * crowd.agents), by_demand)
    return min(share, available // 4) if crowd.agents > 1 else share


def _ahead(want: Want, crowd: Crowd) -> int:
    """What this holder would use in the longest term. The first one gets a little, the next only what they need until
    they have shown what they use.

    Where less than a call a minute is expected, nothing is lent ahead: it would only be given back.
    """
    if not want.demand_per_min:
        return want.need + PREFETCH_CALLS * want.typical if crowd.agents == 1 else want.need
    if want.demand_per_min < want.typical:
        return want.need
    return max(want.demand_per_min * TERM_MS_MAX // 60_000, want.need + want.typical)


def beyond_limit(amount: int, taken: int, slice_amount: int) -> int:
    """How much of a slice lies beyond the limit's own amount, in what the plan allows as overage.

    Args:
        amount: of the limit, without its overage.
        taken: what was posted, debited or lent before this slice.
    """
    return max(0, taken + slice_amount - amount) - max(0, taken - amount)


def recalls_early(available: int, lent_ahead: int, need: int) -> bool:
    """Whether to begin asking back before anybody is refused: calls are lent one by one, and more lies unused with
    holders than is left here."""
    return lent_ahead > available + need


def retry_in_ms(need: int, lent_ahead: int, agents: int) -> int:
    """When one whose call found no room should ask again: the later, the more of them there are for what may come back.

    Args:
        lent_ahead: what lies unused with holders, as last heard.
    """
    crowding = agents * need // max(lent_ahead, 1)
    return min(max(RETRY_MS_MIN, RETRY_MS_MIN * crowding), RETRY_MS_MAX)


def worth_announcing(freed: int, taken: int) -> bool:
    """Whether everybody shall hear that something came back while somebody waits for it.

    Args:
        taken: what is used up or lent now.
    """
    return freed > 0 and freed * ANNOUNCED_PARTS >= taken + freed


def worth_asking_back(rest: int, need: int) -> bool:
    """Whether the unused rest of a lease is worth the messages that its return costs."""
    return rest * SLIVERS_A_CALL >= need and rest > 0


def wanted_back(need: int, available: int, free_elsewhere: int) -> int:
    """How much a recall round should bring: half of what lies free elsewhere, or half more than is lacking."""
    lacking = max(need - max(available, 0), 0)
    return min(max(lacking + (lacking + 1) // 2, (free_elsewhere + 1) // 2), free_elsewhere)


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
