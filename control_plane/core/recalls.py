"""Whom to ask for unused rest when somebody is short: idle holders first, then all so that it lasts equally long. Pure.

Source of the rule: the same as that of lending (:mod:`control_plane.core.allocation`): equal time to exhaustion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.core.allocation import keep_shares

TIME_MS_MAX = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Rest:
    """What lies unused on a lease, and how fast its holder takes from all that it holds, as far as is known."""

    amount: int
    demand_per_min: int


def keep_after_recall(rests: Mapping[str, Rest], wanted: int) -> dict[str, int]:
    """Which leases to ask back, and how much each may keep. Leases that keep all are left out.

    Args:
        wanted: how much shall come back together; if there is not so much, all of it is asked for.
    """
    idle = {lease: rest.amount for lease, rest in rests.items() if not rest.demand_per_min}
    there = sum(idle.values())
    if there >= wanted:
        return keep_shares(idle, wanted)
    busy = {lease: rest for lease, rest in rests.items() if rest.demand_per_min}
    time_ms = _longest(busy, wanted - there)
    keep = {lease: _lasts(rest, time_ms) for lease, rest in busy.items()}
    asked = {lease: kept for lease, kept in keep.items() if kept < busy[lease].amount}
    return {**{lease: 0 for lease, amount in idle.items() if amount}, **asked}


def _longest(busy: Mapping[str, Rest], wanted: int) -> int:
    """The longest time for which everybody may keep enough, while what is wanted comes back."""
    low, high = 0, TIME_MS_MAX
    while low < high:
        middle = (low + high + 1) // 2
        if sum(rest.amount - _lasts(rest, middle) for rest in busy.values()) >= wanted:
            low = middle
        else:
            high = middle - 1
    return low


def _lasts(rest: Rest, time_ms: int) -> int:
    """How much of the rest lasts so long."""
    return min(rest.amount, rest.demand_per_min * time_ms // 60_000)
