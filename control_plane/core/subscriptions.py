"""What a subscription is at any instant: the fold of its changes, of which some may still lie ahead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, assert_never

import msgspec

from protocol.ids import Key
from protocol.windows import Calendar

SEATS_MAX = 1_000_000
QUANTITY_MAX = 10_000


class SubscriptionStatus(StrEnum):
    """Whether a subscription gives anything at the moment; the first three give what its plan says.

    ``past_due``: a payment is missing, and its grace has not ended. ``expired``: its trial, its term or that grace has.
    """

    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def gives(self) -> bool:
        """Whether calls are let through at all."""
        return self in (SubscriptionStatus.TRIALING, SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE)


class Track(StrEnum):
    """The independent things that may change about a subscription, each with its own present and future.

    Because they are independent, a change of one never undoes what was arranged for another: a pause leaves the end of
    the trial where it was, and an upgrade leaves the cancellation standing.
    """

    PLAN = "plan"
    SEATS = "seats"
    ADD_ONS = "add_ons"
    CALENDAR = "calendar"
    TRIAL = "trial"
    PAYMENT = "payment"
    PAUSE = "pause"
    CANCELLATION = "cancellation"
    TERM = "term"


class Trial(StrEnum):
    """Where a trial stands: ``converted`` goes on as paid, ``ended`` gives nothing."""

    NONE = "none"
    RUNNING = "running"
    CONVERTED = "converted"
    ENDED = "ended"


class Payment(StrEnum):
    """Whether payments are in order: ``unpaid`` comes when the grace of ``past_due`` ends."""

    GOOD = "good"
    PAST_DUE = "past_due"
    UNPAID = "unpaid"


class AddOn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many of one version of an add-on."""

    add_on: Key
    version: Annotated[int, msgspec.Meta(ge=1)]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)] = 1


class Change(NamedTuple):
    """From ``from_ms`` on, a track has this value. ``serial``: which of two with the same instant is the later one."""

    track: Track
    value: Any
    from_ms: int
    serial: int = 0


@dataclass(frozen=True)
class Terms:
    """A subscription at one instant.

    Attributes:
        seats: how many were bought; limits that count by the seat are multiplied by it.
        add_ons: those that are on it, in the order of their keys.
    """

    plan: str
    version: int
    seats: int = 1
    add_ons: tuple[AddOn, ...] = ()
    calendar: Calendar = Calendar()
    trial: Trial = Trial.NONE
    payment: Payment = Payment.GOOD
    paused: bool = False
    cancelled: bool = False
    over: bool = False

    @property
    def status(self) -> SubscriptionStatus:
        """What counts first is said first: a cancelled subscription is not called paused."""
        if self.cancelled:
            return SubscriptionStatus.CANCELLED
        if self.over or self.trial is Trial.ENDED or self.payment is Payment.UNPAID:
            return SubscriptionStatus.EXPIRED
        if self.paused:
            return SubscriptionStatus.PAUSED
        if self.payment is Payment.PAST_DUE:
            return SubscriptionStatus.PAST_DUE
        return SubscriptionStatus.TRIALING if self.trial is Trial.RUNNING else SubscriptionStatus.ACTIVE


def terms_at(changes: Iterable[Change], at_ms: int) -> Terms | None:
    """The subscription as it is at an instant; ``None`` before it begins, and without one."""
    values = {change.track: change.value for change in in_order(changes) if change.from_ms <= at_ms}
    if Track.PLAN not in values:
        return None
    terms = Terms(*values[Track.PLAN])
    for track, value in values.items():
        terms = _with(terms, track, value)
    return terms


def in_order(changes: Iterable[Change]) -> list[Change]:
    """By when they take effect."""
    return sorted(changes, key=lambda change: (change.from_ms, change.serial))


def next_change_ms(changes: Iterable[Change], after_ms: int) -> int | None:
    """The first instant after this one at which something changes by itself."""
    return min((change.from_ms for change in changes if change.from_ms > after_ms), default=None)


def ends_at_ms(changes: Iterable[Change], at_ms: int) -> int | None:
    """When a subscription that gives something will stop to, by what is arranged now; ``None`` if it does not."""
    ordered = in_order(changes)
    terms = terms_at(ordered, at_ms)
    if terms is None or not terms.status.gives:
        return None
    for instant in sorted({change.from_ms for change in ordered if change.from_ms > at_ms}):
        following = terms_at(ordered, instant)
        if following is None or not following.status.gives:
            return instant
    return None


def to_json(value: Any) -> str:
    """A value of any track as it is stored."""
    return msgspec.json.encode(value).decode()


def from_json(track: Track, text: str) -> Any:
    """A stored value, in its type."""
    return msgspec.json.decode(text, type=_TYPES[track])


_TYPES: Mapping[Track, Any] = {
    Track.PLAN: tuple[str, int],
    Track.SEATS: int,
    Track.ADD_ONS: tuple[AddOn, ...],
    Track.CALENDAR: Calendar,
    Track.TRIAL: Trial,
    Track.PAYMENT: Payment,
    Track.PAUSE: bool,
    Track.CANCELLATION: bool,
    Track.TERM: bool,
}


def _with(terms: Terms, track: Track, value: Any) -> Terms:
    match track:
        case Track.PLAN:
            return replace(terms, plan=value[0], version=value[1])
        case Track.SEATS:
            return replace(terms, seats=value)
        case Track.ADD_ONS:
            return replace(terms, add_ons=tuple(sorted(value, key=lambda one: one.add_on)))
        case Track.CALENDAR:
            return replace(terms, calendar=value)
        case Track.TRIAL:
            return replace(terms, trial=value)
        case Track.PAYMENT:
            return replace(terms, payment=value)
        case Track.PAUSE:
            return replace(terms, paused=value)
        case Track.CANCELLATION:
            return replace(terms, cancelled=value)
        case Track.TERM:
            return replace(terms, over=value)
        case _:
            assert_never(track)


def segments(changes: Iterable[Change], start_ms: int, until_ms: int) -> Iterator[tuple[int, int, Terms | None]]:
    """The subscription from ``start_ms`` to ``until_ms`` in stretches in which nothing changes: from, to, terms."""
    ordered = in_order(changes)
    edges = sorted({start_ms, *(one.from_ms for one in ordered if start_ms < one.from_ms < until_ms)})
    for at, begin in enumerate(edges):
        end = edges[at + 1] if at + 1 < len(edges) else until_ms
        yield begin, end, terms_at(ordered, begin)
