"""What people are told of without asking, and when a threshold is crossed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from control_plane.core.credits import Pool
from control_plane.core.overage import authored_key
from control_plane.core.plans import PlanLimit
from protocol.entitlements import Limit
from protocol.windows import WindowKind


class NoticeKind(StrEnum):
    """Every kind of notice."""

    THRESHOLD_CROSSED = "limit.threshold_crossed"
    THRESHOLD_RECOVERED = "limit.threshold_recovered"
    STATUS_CHANGED = "subscription.status_changed"
    PLAN_CHANGED = "subscription.plan_changed"
    PERIOD_CLOSED = "billing_period.closed"
    CREDITS_LOW = "credits.low"
    CREDITS_RECOVERED = "credits.recovered"


MEANINGS: Mapping[NoticeKind, str] = {
    NoticeKind.THRESHOLD_CROSSED: "The use of a limit has reached a threshold of its plan: once for each threshold, "
    "scope value and window, unless it recovers in between.",
    NoticeKind.THRESHOLD_RECOVERED: "It is below that threshold again: its amount was raised, or its use corrected.",
    NoticeKind.STATUS_CHANGED: "The subscription has another status: trialing, active, past_due, paused, cancelled ...",
    NoticeKind.PLAN_CHANGED: "The subscription is on another plan, another version of it, or has other add-ons.",
    NoticeKind.PERIOD_CLOSED: "A billing period was closed: its statement will not change any more.",
    NoticeKind.CREDITS_LOW: "So many per cent of the credits that were granted and count now are burned, which is a "
    "threshold of the plan; 100: none are left. Once for each threshold, unless it recovers in between.",
    NoticeKind.CREDITS_RECOVERED: "Less than that is burned again: credits were granted, or use was corrected.",
}


class Watched(NamedTuple):
    """A limit whose use is compared with thresholds, in per cent of its amount."""

    limit: Limit
    percents: tuple[int, ...]


Watch = Mapping[str, Watched]
"""By counter."""


def watch(limits: Iterable[Limit], authored: Iterable[PlanLimit]) -> Watch:
    """Limits that have thresholds; a limit's variations by role have the same."""
    percents = {limit.key: limit.thresholds for limit in authored if limit.thresholds}
    if not percents:
        return {}
    found = {limit.counter: Watched(limit, percents.get(authored_key(limit), ())) for limit in limits}
    return {counter: one for counter, one in found.items() if one.percents}


class Level(NamedTuple):
    """How far a limit is used: so much of so much; ``None``: unlimited. ``spent``: a balance of which nothing is left,
    because all that ever filled it was burned or has ended."""

    amount: int | None
    used: int
    spent: bool = False


def level(limit: Limit, used: int, pool: Pool, at_ms: int) -> Level:
    """How far a limit is used; a balance: how much of the grants that count at that instant is burned. Grants that have
    ended are in neither number, so that what was burned of them years ago says nothing of what is left.

    Args:
        used: all that was used in the window, for a balance: ever. pool: the balance's.
    """
    if limit.window is not WindowKind.GRANTS or limit.amount is None:
        return Level(limit.amount, used)
    ceiling, granted = pool.ceiling(at_ms), pool.granted(at_ms)
    overridden = limit.amount - ceiling
    amount = max(0, granted + overridden)
    return Level(amount, used - (ceiling - granted), spent=ceiling > 0 and not amount)


def crossed(percents: Iterable[int], at: Level) -> frozenset[int]:
    """The thresholds that this use has reached; an amount of 0 is reached by the first use, and a spent balance is
    burned to 100 per cent."""
    amount, used = at.amount, at.used
    if amount is None or (used <= 0 and not at.spent):
        return frozenset()
    return frozenset(one for one in percents if used * 100 >= one * amount and (used > 0 or one <= 100))
