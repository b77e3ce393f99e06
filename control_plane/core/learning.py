"""Learning: after its database was restored to an older state, the control plane listens before it lends. Pure.

What was granted after the backup is held by agents and known to nobody else. Until they have said it, lending more of a
finite limit could lend the same units twice.
"""

from __future__ import annotations

LEASE_TERM_MS = 60_000
LISTEN_MS = LEASE_TERM_MS + LEASE_TERM_MS // 200 + 250 + 5_000
"""The least: one term with the margin of the clock rule, after which every share of a rate that nobody reported is
dead by its holder's own clock; and five seconds for the exchanges under way."""

EXPECTED_MS = 3_600_000
"""Agents heard of within the hour before are waited for."""

STALE_MS = 60_000


def expected_since_ms(now_ms: int, newest_before_ms: int | None) -> int:
    """From when on an agent must have been heard of to be waited for.

    Args:
        newest_before_ms: when any agent was last heard of, not counting the last ``STALE_MS``: those who spoke then
            may have spoken after the restore. What the database knows ends at about that moment, which may be long
            ago. ``None`` when there is none.
    """
    return (now_ms if newest_before_ms is None else min(newest_before_ms, now_ms)) - EXPECTED_MS


def is_over(now_ms: int, until_ms: int, at_most_until_ms: int, missing: int) -> bool:
    """Whether lending may begin again.

    Args:
        until_ms: the end of the least time. at_most_until_ms: when even agents that are missing are not waited for.
        missing: how many agents that were expected have not yet said what they hold.
    """
    return now_ms >= at_most_until_ms or (now_ms >= until_ms and missing == 0)
