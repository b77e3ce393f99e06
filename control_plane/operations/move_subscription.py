"""Moves a subscription through its life: cancel and take that back, pause and resume, a missing payment and its end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, assert_never

from control_plane.core.arrangements import When, arrange, instant_of, trial_end_ms
from control_plane.core.subscriptions import Payment, SubscriptionStatus, Track, Trial
from control_plane.operations.author import Author
from control_plane.operations.change_customer import require_customer
from control_plane.operations.change_subscription import Life, require_subscription, write
from control_plane.operations.refusals import Conflict
from control_plane.store.database import Connection
from protocol.violations import Violation


class Action(StrEnum):
    """What may be done with a subscription that there is."""

    CANCEL = "cancel"
    UNCANCEL = "uncancel"
    PAUSE = "pause"
    RESUME = "resume"
    PAST_DUE = "past_due"
    PAY = "pay"


@dataclass(frozen=True)
class Move:
    """One action.

    Attributes:
        when: of a cancellation or a pause. A cancellation at the period's end ends a running trial with the trial.
        until_ms: of a pause: when it ends by itself; ``None``: when somebody resumes.
        grace_ms: of a missing payment: for how long everything is still given.
    """

    action: Action
    when: When | int = When.NOW
    until_ms: int | None = None
    grace_ms: int = 0


Orders = list[tuple[Track, Any, int]]


def move_subscription(connection: Connection, customer: str, move: Move, author: Author) -> Life:
    """Do it; the same said twice changes nothing.

    Raises: NotFound: no such customer or subscription. Conflict: it has ended, so nothing of it can be paused, paid or
        brought back (order a plan instead). Violation: an instant that has passed.
    """
    require_customer(connection, customer, lock=True)
    known = require_subscription(connection, customer, author.now_ms)
    orders = _orders(known, move, author.now_ms)
    whole = {track for track, _, _ in orders}
    arranged = arrange(known.changes, orders, author.now_ms, whole=whole)
    return write(connection, customer, known.changes, arranged, f"subscription.{move.action.value}", author)


def cancel_subscription(connection: Connection, customer: str, author: Author) -> Life:
    """End a subscription now. Raises: NotFound: no such customer, or it never had one."""
    return move_subscription(connection, customer, Move(Action.CANCEL), author)


def _orders(known: Life, move: Move, now_ms: int) -> Orders:
    terms = known.terms
    match move.action:
        case Action.CANCEL:
            if terms.cancelled:
                return []
            return [(Track.CANCELLATION, True, _ends_ms(known, move.when, now_ms))]
        case Action.UNCANCEL:
            if terms.cancelled:
                raise _ended("is cancelled already")
            return [(Track.CANCELLATION, False, now_ms)]
        case _ if terms.cancelled or (terms.status is SubscriptionStatus.EXPIRED and move.action is not Action.PAY):
            raise _ended(f"is {terms.status.value}")
        case Action.PAUSE:
            from_ms = instant_of(move.when, terms, now_ms)
            orders: Orders = [(Track.PAUSE, True, from_ms)]
            if move.until_ms is not None:
                if move.until_ms <= from_ms:
                    raise Violation("until", "is not after the pause begins", "a later instant")
                orders.append((Track.PAUSE, False, move.until_ms))
            return orders
        case Action.RESUME:
            return [(Track.PAUSE, False, now_ms)]
        case Action.PAST_DUE:
            if terms.payment is Payment.PAST_DUE:
                return []  # its grace runs from the first time that this was said
            return [
                (Track.PAYMENT, Payment.PAST_DUE, now_ms),
                (Track.PAYMENT, Payment.UNPAID, now_ms + max(move.grace_ms, 1)),
            ]
        case Action.PAY:
            if terms.over or terms.trial is Trial.ENDED:
                raise _ended("has ended")
            return [(Track.PAYMENT, Payment.GOOD, now_ms)]
        case _:
            assert_never(move.action)


def _ends_ms(known: Life, when: When | int, now_ms: int) -> int:
    if when is When.PERIOD_END and (trial_ms := trial_end_ms(known.changes, now_ms)) is not None:
        return trial_ms
    return instant_of(when, known.terms, now_ms)


def _ended(how: str) -> Conflict:
    return Conflict("subscription_ended", f"The subscription {how}; order a plan to begin anew.")
