"""Subscribes customers to plans, changes, pauses and cancels subscriptions."""

from __future__ import annotations

from control_plane.core.entitlements import SubscriptionStatus
from control_plane.operations.author import Author
from control_plane.operations.change_customer import require_customer
from control_plane.operations.refusals import Conflict, NotFound
from control_plane.store import catalog, subscriptions
from control_plane.store.database import Connection
from control_plane.store.subscriptions import SubscriptionRow


def subscribe(
    connection: Connection, customer: str, plan: str, version: int | None, status: SubscriptionStatus, author: Author
) -> SubscriptionRow:
    """Put a customer on a plan; the same said twice changes nothing.

    Usage is never cleared: what the old plan counted, the new one goes on counting. The billing anchor is set by the
    first subscription and stays.

    Args:
        version: of the plan; ``None`` keeps that of a live subscription to the same plan, else takes the newest.

    Raises: NotFound: no such customer, plan or version. Conflict: the customer is archived.
    """
    if require_customer(connection, customer, lock=True).archived_at_ms is not None:
        raise Conflict("customer_archived", f"Customer {customer!r} is archived; PUT it first to bring it back.")
    known = subscriptions.find(connection, customer)
    version = version or _pinned(known, plan) or _newest(connection, plan)
    if catalog.find_plan(connection, plan, version) is None:
        raise NotFound("plan_version_not_found", f"Plan {plan!r} has no version {version}.", "version")
    if known is not None and (known.plan, known.plan_version, known.status) == (plan, version, status.value):
        return known
    now_ms = author.now_ms
    anchor_ms = known.anchor_ms if known else now_ms
    begun = known.started_at_ms if known and known.status != SubscriptionStatus.CANCELLED.value else now_ms
    wanted = SubscriptionRow(customer, plan, version, status.value, anchor_ms, begun, now_ms)
    (subscriptions.replace if known else subscriptions.add)(connection, wanted)
    body = {"plan": plan, "version": version, "status": status.value}
    author.write_down(connection, "subscription.put", customer, body, customer)
    author.change_entitlement(connection, customer)
    return wanted


def cancel_subscription(connection: Connection, customer: str, author: Author) -> SubscriptionRow:
    """End a subscription now. Raises: NotFound: no such customer, or it never had one."""
    require_customer(connection, customer, lock=True)
    known = require_subscription(connection, customer)
    if known.status == SubscriptionStatus.CANCELLED.value:
        return known
    wanted = known._replace(status=SubscriptionStatus.CANCELLED.value, changed_at_ms=author.now_ms)
    subscriptions.replace(connection, wanted)
    author.write_down(connection, "subscription.cancel", customer, {}, customer)
    author.change_entitlement(connection, customer)
    return wanted


def require_subscription(connection: Connection, customer: str) -> SubscriptionRow:
    """The customer's subscription. Raises: NotFound."""
    require_customer(connection, customer)
    known = subscriptions.find(connection, customer)
    if known is None:
        raise NotFound("subscription_not_found", f"Customer {customer!r} has no subscription.", "customer")
    return known


def _pinned(known: SubscriptionRow | None, plan: str) -> int | None:
    if known is None or known.plan != plan or known.status == SubscriptionStatus.CANCELLED.value:
        return None
    return known.plan_version


def _newest(connection: Connection, plan: str) -> int:
    newest = catalog.find_plan(connection, plan)
    if newest is None:
        raise NotFound("plan_not_found", f"There is no plan {plan!r}.", "plan")
    return newest.version
