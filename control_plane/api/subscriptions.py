"""Subscriptions over HTTP: what a customer has, what is arranged for later, and everything that ever was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from control_plane.api.context import Context
from control_plane.api.instants import Instant, WhenText, instant_ms, optional_ms, when_of
from control_plane.api.parameters import Page, PageCursor, PageLimit, PathKey, page, serial_cursor
from control_plane.api.plans import VERSION_MAX
from control_plane.api.subscription_items import ChangeItem, SubscriptionItem, change_item, subscription_item
from control_plane.api.verbs import acts, ends, puts, reads
from control_plane.core.subscriptions import QUANTITY_MAX, SEATS_MAX
from control_plane.operations.change_customer import require_customer
from control_plane.operations.change_subscription import AddOnOrder, SubscriptionOrder, order, require_subscription
from control_plane.operations.move_subscription import Action, Move, cancel_subscription, move_subscription
from control_plane.store import subscriptions
from control_plane.store.database import Connection
from protocol.ids import Key
from protocol.violations import Violation
from protocol.windows import Calendar

PATH = "/v1/customers/{customer:str}/subscription"
TAGS = ["subscriptions"]
ADD_ONS_MAX = 32
DAY_MS = 86_400_000
Version = Annotated[int, msgspec.Meta(ge=1, le=VERSION_MAX)]
Days = Annotated[int, msgspec.Meta(ge=1, le=3650)]
When = Annotated[str, QueryParameter(max_length=40, description="now, period_end, or an instant to come (RFC 3339)")]


class AddOnWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many of an add-on. Without a version: the one the customer has, else the newest."""

    add_on: Key
    version: Version | None = None
    quantity: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)] = 1


class BillingWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By which calendar periods are told.

    Attributes:
        anchor: where billing periods begin: the same day and time of day, each period; a day that a month lacks becomes
            that month's last. Without it: the moment of the order.
        zone: an IANA name; days, weeks, months and billing periods begin on its clocks.
        months: how long a billing period is.
    """

    anchor: Instant | None = None
    zone: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "UTC"
    months: Annotated[int, msgspec.Meta(ge=1, le=36)] = 1


class SubscriptionWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a customer shall have; what is left out stays as it is.

    Attributes:
        version: of the plan; without it the one that the customer has of this plan, else the newest.
        status: ``active`` resumes what was paused, ``paused`` pauses; without it neither.
        add_ons: all that it shall have, each with a quantity; an empty list takes all away.
        trial_days, trial_ends_at: one of the two begins a trial; ``trial_converts``: and then it goes on as paid.
        term_ends_at: it ends by itself then.
        when: from when plan, seats and add-ons count. A new arrangement replaces what was arranged for them before.
    """

    plan: Key
    version: Version | None = None
    status: Annotated[str, msgspec.Meta(pattern="^(active|paused)$")] | None = None
    seats: Annotated[int, msgspec.Meta(ge=1, le=SEATS_MAX)] | None = None
    add_ons: Annotated[tuple[AddOnWrite, ...], msgspec.Meta(max_length=ADD_ONS_MAX)] | None = None
    billing: BillingWrite | None = None
    trial_days: Days | None = None
    trial_ends_at: Instant | None = None
    trial_converts: bool = True
    term_ends_at: Instant | None = None
    when: WhenText = "now"


class MoveWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of a subscription's life.

    Attributes:
        when: of a cancellation or a pause: ``now``, ``period_end`` (of a trial: its end), or an instant.
        until: of a pause: when it ends by itself.
        grace_days: of a missing payment: for how long everything is still given.
    """

    action: Action
    when: WhenText = "now"
    until: Instant | None = None
    grace_days: Annotated[int, msgspec.Meta(ge=0, le=365)] = 7


@puts(PATH, SubscriptionWrite, tags=TAGS)
def put_subscription(
    customer: PathKey, data: JSONBody[SubscriptionWrite], context: NamedDependency[Context]
) -> SubscriptionItem:
    """Subscribe a customer, or change plan, version, seats, add-ons, periods: now, at the period's end, or at an
    instant. What was used stays used."""
    wanted = _order(data, context.now_ms)
    life = context.change(
        lambda connection, author: order(connection, customer, wanted, author),
        shown=_shown(customer, context),
        of=customer,
    )
    return subscription_item(customer, life, context.now_ms)


@acts(PATH + "/moves", MoveWrite, tags=TAGS)
def move(customer: PathKey, data: JSONBody[MoveWrite], context: NamedDependency[Context]) -> SubscriptionItem:
    """Cancel, take a cancellation back, pause, resume, say that a payment is missing or has come."""
    step = Move(data.action, when_of(data.when), optional_ms(data.until, "until"), data.grace_days * DAY_MS)
    life = context.change(
        lambda connection, author: move_subscription(connection, customer, step, author),
        shown=_shown(customer, context),
        of=customer,
    )
    return subscription_item(customer, life, context.now_ms)


@reads(PATH, tags=TAGS)
def get_subscription(customer: PathKey, context: NamedDependency[Context]) -> SubscriptionItem:
    """The customer's subscription: what it is now, and what is arranged for later."""
    life = context.read(lambda connection: require_subscription(connection, customer, context.now_ms))
    return subscription_item(customer, life, context.now_ms)


@ends(PATH, tags=TAGS)
def cancel(customer: PathKey, context: NamedDependency[Context]) -> SubscriptionItem:
    """Cancel the subscription now."""
    life = context.change(
        lambda connection, author: cancel_subscription(connection, customer, author),
        shown=_shown(customer, context),
        of=customer,
    )
    return subscription_item(customer, life, context.now_ms)


@reads(PATH + "/history", tags=TAGS)
def list_changes(
    customer: PathKey, context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[ChangeItem]:
    """Every change of the subscription in the order in which they were arranged, with who arranged it and what was
    replaced before it came."""
    after = serial_cursor(cursor) or 0

    def look(connection: Connection) -> list[subscriptions.ChangeRow]:
        require_customer(connection, customer)
        return subscriptions.history(connection, customer, after, limit + 1)

    return page(context.read(look), limit, change_item, lambda row: row.change)


def _shown(customer: str, context: Context) -> Callable[[Connection], SubscriptionItem]:
    now_ms = context.now_ms
    return lambda connection: subscription_item(customer, require_subscription(connection, customer, now_ms), now_ms)


def _order(data: SubscriptionWrite, now_ms: int) -> SubscriptionOrder:
    if data.trial_days is not None and data.trial_ends_at is not None:
        raise Violation("trial_ends_at", "is given beside trial_days", "one of the two")
    trial_ends_ms = optional_ms(data.trial_ends_at, "trial_ends_at")
    when = when_of(data.when)
    if data.trial_days is not None:
        trial_ends_ms = (when if isinstance(when, int) else now_ms) + data.trial_days * DAY_MS
    return SubscriptionOrder(
        plan=data.plan,
        version=data.version,
        paused=None if data.status is None else data.status == "paused",
        seats=data.seats,
        add_ons=None
        if data.add_ons is None
        else tuple(AddOnOrder(one.add_on, one.version, one.quantity) for one in data.add_ons),
        calendar=None if data.billing is None else _calendar(data.billing, now_ms),
        trial_ends_ms=trial_ends_ms,
        converts=data.trial_converts,
        term_ends_ms=optional_ms(data.term_ends_at, "term_ends_at"),
        when=when,
    )


def _calendar(data: BillingWrite, now_ms: int) -> Calendar:
    try:
        ZoneInfo(data.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Violation("billing.zone", f"is {data.zone!r}", "an IANA time zone such as Europe/Berlin") from None
    anchor_ms = now_ms if data.anchor is None else instant_ms(data.anchor, "billing.anchor")
    return Calendar(anchor_ms, data.zone, data.months)


SUBSCRIPTION_HANDLERS = [put_subscription, move, get_subscription, cancel, list_changes]
