"""How subscriptions are shown."""

from __future__ import annotations

import msgspec

from control_plane.core.arrangements import trial_end_ms
from control_plane.core.subscriptions import Change, SubscriptionStatus, Track, ends_at_ms, in_order, to_json
from control_plane.operations.change_subscription import Life
from control_plane.store.subscriptions import ChangeRow
from protocol.instants import rfc3339
from protocol.windows import WindowKind, window_at


class AddOnOn(msgspec.Struct, frozen=True):
    """So many of one version of an add-on."""

    add_on: str
    version: int
    quantity: int


class ComingItem(msgspec.Struct, frozen=True):
    """What will change by itself: a part of the subscription, and its value from then on (JSON)."""

    track: Track
    value: msgspec.Raw
    at: str


class SubscriptionItem(msgspec.Struct, frozen=True):
    """A subscription.

    Attributes:
        status: as of now; of one that begins later: what it will be.
        anchor, zone, period_months: where billing periods begin, on whose clocks, and how long they are.
        period_start, period_end: the present billing period.
        started_at: when it began, the last time. changed_at: when something about it was changed last.
        trial_ends_at, ends_at: when a running trial ends, and when everything will be refused, by what is arranged.
        coming: all that is arranged for later, in order.
    """

    customer: str
    plan: str
    version: int
    status: SubscriptionStatus
    seats: int
    add_ons: tuple[AddOnOn, ...]
    anchor: str
    zone: str
    period_months: int
    period_start: str
    period_end: str
    started_at: str
    changed_at: str
    trial_ends_at: str | None
    ends_at: str | None
    coming: tuple[ComingItem, ...]


class ChangeItem(msgspec.Struct, frozen=True):
    """One arrangement: from ``at`` on, a part of the subscription has a value; ``replaced_at``: if something else was
    arranged instead before that."""

    change: int
    track: Track
    value: msgspec.Raw
    at: str
    cause: str
    actor: str
    recorded_at: str
    replaced_at: str | None


def subscription_item(customer: str, life: Life, now_ms: int) -> SubscriptionItem:
    """A subscription as of now."""
    terms, past = life.terms, [one for one in life.changes if one.from_ms <= now_ms]
    coming = [one for one in in_order(life.changes) if one.from_ms > now_ms]
    period = window_at(WindowKind.BILLING_PERIOD, now_ms, terms.calendar)
    trial_ms = trial_end_ms(life.changes, now_ms)
    ends_ms = ends_at_ms(life.changes, now_ms)
    return SubscriptionItem(
        customer=customer,
        plan=terms.plan,
        version=terms.version,
        status=terms.status,
        seats=terms.seats,
        add_ons=tuple(AddOnOn(one.add_on, one.version, one.quantity) for one in terms.add_ons),
        anchor=rfc3339(terms.calendar.anchor_ms),
        zone=terms.calendar.zone,
        period_months=terms.calendar.months,
        period_start=rfc3339(period.start_ms),
        period_end=rfc3339(period.end_ms),
        started_at=rfc3339(_started_ms(life.changes, now_ms)),
        changed_at=rfc3339(max((one.from_ms for one in past), default=now_ms)),
        trial_ends_at=None if trial_ms is None else rfc3339(trial_ms),
        ends_at=None if ends_ms is None else rfc3339(ends_ms),
        coming=tuple(ComingItem(one.track, _raw(one), rfc3339(one.from_ms)) for one in coming),
    )


def change_item(row: ChangeRow) -> ChangeItem:
    """One arrangement."""
    return ChangeItem(
        change=row.change,
        track=Track(row.track),
        value=msgspec.Raw(row.value.encode()),
        at=rfc3339(row.from_ms),
        cause=row.cause,
        actor=row.actor,
        recorded_at=rfc3339(row.recorded_at_ms),
        replaced_at=None if row.replaced_at_ms is None else rfc3339(row.replaced_at_ms),
    )


def _started_ms(changes: tuple[Change, ...], now_ms: int) -> int:
    """Its first plan, or the last time that a cancellation was over and it began anew."""
    plans = [one.from_ms for one in changes if one.track is Track.PLAN]
    anew = [one.from_ms for one in changes if one.track is Track.CANCELLATION and one.value is False]
    return max([min(plans, default=now_ms), *[at_ms for at_ms in anew if at_ms <= now_ms]])


def _raw(one: Change) -> msgspec.Raw:
    return msgspec.Raw(to_json(one.value).encode())
