"""What people are told of without asking, and when a threshold is crossed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from control_plane.core.overage import authored_key
from control_plane.core.plans import PlanLimit
from protocol.entitlements import Limit


class NoticeKind(StrEnum):
    """Every kind of notice."""

    THRESHOLD_CROSSED = "limit.threshold_crossed"
    THRESHOLD_RECOVERED = "limit.threshold_recovered"
    STATUS_CHANGED = "subscription.status_changed"
    PLAN_CHANGED = "subscription.plan_changed"
    PERIOD_CLOSED = "billing_period.closed"


MEANINGS: Mapping[NoticeKind, str] = {
    NoticeKind.THRESHOLD_CROSSED: "The use of a limit has reached a threshold of its plan: once for each threshold, "
    "scope value and window, unless it recovers in between.",
    NoticeKind.THRESHOLD_RECOVERED: "It is below that threshold again: its amount was raised, or its use corrected.",
    NoticeKind.STATUS_CHANGED: "The subscription has another status: trialing, active, past_due, paused, cancelled ...",
    NoticeKind.PLAN_CHANGED: "The subscription is on another plan, another version of it, or has other add-ons.",
    NoticeKind.PERIOD_CLOSED: "A billing period was closed: its statement will not change any more.",
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


def crossed(watched: Watched, used: int) -> frozenset[int]:
    """The thresholds that this use has reached; an amount of 0 is reached by the first use."""
    amount = watched.limit.amount
    if amount is None or used <= 0:
        return frozenset()
    return frozenset(percent for percent in watched.percents if used * 100 >= percent * amount)
