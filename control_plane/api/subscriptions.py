"""Subscriptions over HTTP."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody

from control_plane.api.context import Context
from control_plane.api.parameters import PathKey
from control_plane.api.plans import VERSION_MAX
from control_plane.api.verbs import ends, puts, reads
from control_plane.core.entitlements import SubscriptionStatus
from control_plane.operations.change_subscription import cancel_subscription, require_subscription, subscribe
from control_plane.store.subscriptions import SubscriptionRow
from protocol.ids import Key
from protocol.instants import rfc3339

PATH = "/v1/customers/{customer:str}/subscription"
TAGS = ["customers"]


class WantedStatus(StrEnum):
    """A subscription is active or paused; DELETE cancels it."""

    ACTIVE = "active"
    PAUSED = "paused"


class SubscriptionWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which plan the customer shall have. Without a version: the one it has of this plan, else the newest."""

    plan: Key
    version: Annotated[int, msgspec.Meta(ge=1, le=VERSION_MAX)] | None = None
    status: WantedStatus = WantedStatus.ACTIVE


class SubscriptionItem(msgspec.Struct, frozen=True):
    """A subscription. ``anchor``: where its billing periods begin."""

    customer: str
    plan: str
    version: int
    status: SubscriptionStatus
    anchor: str
    started_at: str
    changed_at: str


def _item(row: SubscriptionRow) -> SubscriptionItem:
    return SubscriptionItem(
        customer=row.customer,
        plan=row.plan,
        version=row.plan_version,
        status=SubscriptionStatus(row.status),
        anchor=rfc3339(row.anchor_ms),
        started_at=rfc3339(row.started_at_ms),
        changed_at=rfc3339(row.changed_at_ms),
    )


@puts(PATH, SubscriptionWrite, tags=TAGS)
def put_subscription(
    customer: PathKey, data: JSONBody[SubscriptionWrite], context: NamedDependency[Context]
) -> SubscriptionItem:
    """Subscribe a customer, change its plan or version, pause or resume; what was used stays used."""
    status = SubscriptionStatus(data.status.value)
    row = context.change(
        lambda connection, author: subscribe(connection, customer, data.plan, data.version, status, author)
    )
    return _item(row)


@reads(PATH, tags=TAGS)
def get_subscription(customer: PathKey, context: NamedDependency[Context]) -> SubscriptionItem:
    """The customer's subscription."""
    return _item(context.read(lambda connection: require_subscription(connection, customer)))


@ends(PATH, tags=TAGS)
def cancel(customer: PathKey, context: NamedDependency[Context]) -> SubscriptionItem:
    """Cancel the subscription now."""
    return _item(context.change(lambda connection, author: cancel_subscription(connection, customer, author)))


SUBSCRIPTION_HANDLERS = [put_subscription, get_subscription, cancel]
