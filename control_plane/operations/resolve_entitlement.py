"""Says what customers may use now, and where their billing periods begin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from control_plane.core.catalog import BUILT_IN_METERS, decode_plan
from control_plane.core.entitlements import Holder, Subscription, SubscriptionStatus, resolve
from control_plane.store import catalog, customers
from control_plane.store.database import Connection
from protocol.entitlements import Entitlement


def entitlement_of(connection: Connection, customer: str, now_ms: int) -> Entitlement | None:
    """What the customer may use now; ``None`` for a customer that nobody knows."""
    return entitlements_of(connection, [customer], now_ms).get(customer)


def entitlements_of(connection: Connection, names: Iterable[str], now_ms: int) -> dict[str, Entitlement]:
    """The same for many customers, in a handful of statements; unknown customers are left out.

    Args:
        now_ms: as of when; nothing in an entitlement ends by itself yet, so every instant gives the same answer.
    """
    return standing_of(connection, names, now_ms).entitlements


class Standing(NamedTuple):
    """What customers may use, and where their billing periods begin (only of those that have a subscription)."""

    entitlements: dict[str, Entitlement]
    anchors: dict[str, int]


def standing_of(connection: Connection, names: Iterable[str], now_ms: int) -> Standing:
    """Both for many customers."""
    del now_ms
    meters = tuple(sorted({*BUILT_IN_METERS, *catalog.meter_names(connection)}))
    rows = list(customers.holders(connection, names))
    return Standing(
        {row.customer: resolve(_holder(row), meters) for row in rows},
        {row.customer: row.anchor_ms for row in rows if row.anchor_ms is not None},
    )


def anchor_of(connection: Connection, customer: str) -> int:
    """The instant at which the customer's billing periods begin, milliseconds; 0 without a subscription."""
    for row in customers.holders(connection, [customer]):
        return row.anchor_ms or 0
    return 0


def _holder(row: customers.HolderRow) -> Holder:
    subscription = None
    if row.plan is not None and row.plan_version is not None and row.status is not None:
        status = SubscriptionStatus(row.status)
        subscription = Subscription(row.plan, row.plan_version, status, row.anchor_ms or 0)
    return Holder(
        customer=row.customer,
        version=row.version,
        archived=row.archived_at_ms is not None,
        subscription=subscription,
        plan=decode_plan(row.body) if row.body is not None else None,
    )
