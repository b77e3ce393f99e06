"""An entitlement says what customer, subscription and plan together allow."""

from __future__ import annotations

import pytest

from control_plane.core.catalog import PlanBody
from control_plane.core.entitlements import Holder, Subscription, SubscriptionStatus, resolve
from protocol.entitlements import CustomerStatus, Limit
from protocol.windows import WindowKind

PLAN = PlanBody(limits=(Limit("a", "requests", 10, WindowKind.DAY),))


def holder(status: SubscriptionStatus | None, *, archived: bool = False) -> Holder:
    subscription = None if status is None else Subscription("pro", 3, status, anchor_ms=0)
    return Holder("acme", 7, archived, subscription, None if status is None else PLAN)


@pytest.mark.parametrize(
    ("holder", "status"),
    [
        (holder(None), CustomerStatus.NO_SUBSCRIPTION),
        (holder(SubscriptionStatus.ACTIVE), CustomerStatus.ACTIVE),
        (holder(SubscriptionStatus.PAUSED), CustomerStatus.PAUSED),
        (holder(SubscriptionStatus.CANCELLED), CustomerStatus.CANCELLED),
        (holder(None, archived=True), CustomerStatus.ARCHIVED),
        (holder(SubscriptionStatus.ACTIVE, archived=True), CustomerStatus.ARCHIVED),
    ],
)
def test_the_status_is_that_of_the_customer_and_then_of_the_subscription(
    holder: Holder, status: CustomerStatus
) -> None:
    assert resolve(holder, ()).status is status


def test_the_document_names_its_plan_version_and_every_meter() -> None:
    entitlement = resolve(holder(SubscriptionStatus.ACTIVE), ("images", "requests"))
    assert (entitlement.customer, entitlement.version, entitlement.plan) == ("acme", 7, "pro@3")
    assert entitlement.meters == ("images", "requests")
    assert entitlement.limits == PLAN.limits


def test_a_cancelled_subscription_keeps_its_limits_so_that_late_usage_is_counted() -> None:
    assert resolve(holder(SubscriptionStatus.CANCELLED), ()).limits == PLAN.limits
    assert resolve(holder(None), ()).limits == ()
