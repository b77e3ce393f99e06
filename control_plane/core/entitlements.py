"""Resolves what a customer may use now from what the control plane knows of it: one document with a version."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from control_plane.core.catalog import PlanBody
from protocol.entitlements import CustomerStatus, Entitlement


class SubscriptionStatus(StrEnum):
    """Whether a subscription gives anything at the moment."""

    ACTIVE = "active"
    PAUSED = "paused"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Subscription:
    """A customer's subscription: one plan version, whatever is published later.

    Attributes:
        anchor_ms: where its billing periods begin.
    """

    plan: str
    plan_version: int
    status: SubscriptionStatus
    anchor_ms: int


@dataclass(frozen=True)
class Holder:
    """What decides a customer's entitlement, as of one moment."""

    customer: str
    version: int
    archived: bool
    subscription: Subscription | None
    plan: PlanBody | None


def resolve(holder: Holder, meters: tuple[str, ...]) -> Entitlement:
    """The entitlement of a customer.

    A paused or cancelled subscription keeps its limits in the document, so that usage that arrives late is still
    counted against them; its status alone refuses every call.

    Args:
        meters: every meter of the catalog, built-in ones included.
    """
    subscription, plan = holder.subscription, holder.plan
    status = _status(holder)
    if subscription is None or plan is None:
        return Entitlement(holder.customer, holder.version, status, meters=meters)
    return Entitlement(
        customer=holder.customer,
        version=holder.version,
        status=status,
        plan=f"{subscription.plan}@{subscription.plan_version}",
        features=plan.features,
        limits=plan.limits,
        meters=meters,
        rates=plan.rates,
    )


def _status(holder: Holder) -> CustomerStatus:
    if holder.archived:
        return CustomerStatus.ARCHIVED
    if holder.subscription is None:
        return CustomerStatus.NO_SUBSCRIPTION
    match holder.subscription.status:
        case SubscriptionStatus.ACTIVE:
            return CustomerStatus.ACTIVE
        case SubscriptionStatus.PAUSED:
            return CustomerStatus.PAUSED
        case SubscriptionStatus.CANCELLED:
            return CustomerStatus.CANCELLED
