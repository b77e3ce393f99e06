"""Subscribes customers to plans, and changes plan, version, seats and add-ons: now, at the period's end, or later."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from control_plane.core import subscriptions as life
from control_plane.core.arrangements import Arrangement, When, arrange, instant_of
from control_plane.core.credit_features import free_violations
from control_plane.core.entitlements import Document, resolve
from control_plane.core.feature_values import VALUES_BYTES_MAX, values_bytes
from control_plane.core.subscriptions import AddOn, Change, Payment, SubscriptionStatus, Terms, Track, Trial, terms_at
from control_plane.operations.author import Author
from control_plane.operations.change_customer import require_customer
from control_plane.operations.refusals import Conflict, NotFound
from control_plane.operations.resolve_entitlement import change_of, facts_of
from control_plane.store import catalog, subscriptions
from control_plane.store.catalog import ADD_ONS
from control_plane.store.database import Connection
from protocol.entitlements import FEATURES_MAX, LIMITS_MAX, RATES_MAX
from protocol.violations import Violation
from protocol.windows import Calendar


@dataclass(frozen=True)
class AddOnOrder:
    """So many of an add-on; ``version`` of ``None`` keeps the one the customer has, else takes the newest."""

    add_on: str
    version: int | None = None
    quantity: int = 1


@dataclass(frozen=True)
class SubscriptionOrder:
    """What a subscription shall be; what is ``None`` stays as it is.

    Attributes:
        version: of the plan; ``None`` keeps that of a live subscription to the same plan, else takes the newest.
        paused: True pauses, False resumes.
        calendar: anchor, zone and length of its periods. Without one the first subscription begins them now, in UTC.
        trial_ends_ms: a trial from the moment the order takes effect until then; ``converts``: and then it is paid.
        term_ends_ms: the subscription ends by itself then.
        when: of plan, seats and add-ons; everything else counts at once.
    """

    plan: str
    version: int | None = None
    paused: bool | None = None
    seats: int | None = None
    add_ons: tuple[AddOnOrder, ...] | None = None
    calendar: Calendar | None = None
    trial_ends_ms: int | None = None
    converts: bool = True
    term_ends_ms: int | None = None
    when: When | int = When.NOW


@dataclass(frozen=True)
class Life:
    """A customer's subscription: all its changes, and what it is now."""

    changes: tuple[Change, ...]
    terms: Terms


def order(connection: Connection, customer: str, wanted: SubscriptionOrder, author: Author) -> Life:
    """Make a subscription what is ordered; the same said twice changes nothing.

    Usage is never cleared: what the old plan counted, the new one goes on counting. What was arranged for later for
    something that the order names is replaced by it. A subscription that had ended begins anew: what had ended it is
    over, its calendar stays.

    Raises: NotFound: no such customer, plan, add-on or version. Conflict: the customer is archived. Violation: an
        instant that has passed, or plan and add-ons together have more limits or features than a customer may.
    """
    if require_customer(connection, customer, lock=True).archived_at_ms is not None:
        raise Conflict("customer_archived", f"Customer {customer!r} is archived; PUT it first to bring it back.")
    changes = changes_of(connection, customer)
    now_ms = author.now_ms
    terms = terms_at(changes, now_ms)
    pieces = list(_pieces(connection, changes, terms, wanted, now_ms))
    return write(connection, customer, changes, arrange(changes, pieces, now_ms), "subscription.put", author)


def _pieces(
    connection: Connection, changes: tuple[Change, ...], terms: Terms | None, wanted: SubscriptionOrder, now_ms: int
) -> Iterable[tuple[Track, Any, int]]:
    live = terms is not None and not terms.cancelled and terms.status is not SubscriptionStatus.EXPIRED
    from_ms = instant_of(wanted.when, terms, now_ms)
    version = wanted.version or _pinned(terms if live else None, wanted.plan) or _newest(connection, wanted.plan)
    if catalog.find_plan(connection, wanted.plan, version) is None:
        raise NotFound("plan_version_not_found", f"Plan {wanted.plan!r} has no version {version}.", "version")
    yield Track.PLAN, (wanted.plan, version), from_ms
    if wanted.seats is not None:
        yield Track.SEATS, wanted.seats, from_ms
    if wanted.add_ons is not None:
        yield Track.ADD_ONS, _add_ons(connection, terms, wanted.add_ons), from_ms
    calendar = wanted.calendar or (None if changes else Calendar(anchor_ms=from_ms))
    if calendar is not None:
        yield Track.CALENDAR, calendar, now_ms
    if not live:
        yield Track.CANCELLATION, False, from_ms
        yield Track.PAYMENT, Payment.GOOD, from_ms
        yield Track.TERM, False, from_ms
        if wanted.trial_ends_ms is None:
            yield Track.TRIAL, Trial.NONE, from_ms
    if wanted.trial_ends_ms is not None:
        yield Track.TRIAL, Trial.RUNNING, from_ms
        ends_ms = _later(wanted.trial_ends_ms, from_ms, "trial_ends_at")
        yield Track.TRIAL, Trial.CONVERTED if wanted.converts else Trial.ENDED, ends_ms
    if wanted.term_ends_ms is not None:
        yield Track.TERM, True, _later(wanted.term_ends_ms, from_ms, "term_ends_at")
    if wanted.paused is not None:
        yield Track.PAUSE, wanted.paused, now_ms


def _later(instant_ms: int, from_ms: int, field: str) -> int:
    if instant_ms <= from_ms:
        raise Violation(field, "is not after the moment from which the order counts", "a later instant")
    return instant_ms


def write(
    connection: Connection,
    customer: str,
    changes: tuple[Change, ...],
    arranged: Arrangement,
    cause: str,
    author: Author,
) -> Life:
    """Write an arrangement down, and what follows from it."""
    if arranged.changes or arranged.replaced:
        record(connection, customer, arranged, cause, author)
        changes = changes_of(connection, customer)
        _require_bounded(connection, customer, [one.from_ms for one in arranged.changes])
        author.change_entitlement(connection, customer, cause)
    terms = terms_at(changes, author.now_ms)
    if terms is None:  # it begins later
        begins_ms = min(one.from_ms for one in changes if one.track is Track.PLAN)
        terms = terms_at(changes, begins_ms)
    assert terms is not None
    return Life(changes, terms)


def record(connection: Connection, customer: str, arranged: Arrangement, cause: str, author: Author) -> None:
    """Write an arrangement down and nothing else; to be followed by the customer's entitlement."""
    subscriptions.replace(connection, arranged.replaced, author.now_ms)
    rows = [
        {
            "customer": customer,
            "track": one.track.value,
            "value": life.to_json(one.value),
            "from_ms": one.from_ms,
            "cause": cause,
            "actor": author.token,
            "recorded_at_ms": author.now_ms,
        }
        for one in arranged.changes
    ]
    subscriptions.add(connection, rows)
    said = [{"track": row["track"], "value": row["value"], "from_ms": row["from_ms"]} for row in rows]
    author.write_down(connection, cause, customer, {"changes": said, "replaced": list(arranged.replaced)}, customer)


def changes_of(connection: Connection, customer: str) -> tuple[Change, ...]:
    """What stands of a customer's subscription, past and to come."""
    return tuple(change_of(row) for row in subscriptions.of(connection, [customer]).get(customer, ()))


def require_subscription(connection: Connection, customer: str, now_ms: int) -> Life:
    """The customer's subscription. Raises: NotFound."""
    require_customer(connection, customer)
    changes = changes_of(connection, customer)
    begins_ms = min((one.from_ms for one in changes if one.track is Track.PLAN), default=now_ms)
    terms = terms_at(changes, max(now_ms, begins_ms))
    if terms is None:
        raise NotFound("subscription_not_found", f"Customer {customer!r} has no subscription.", "customer")
    return Life(changes, terms)


def _require_bounded(connection: Connection, customer: str, instants: Iterable[int]) -> None:
    facts = facts_of(connection, [customer])[customer]
    for at_ms in set(instants):
        if wrong := bounds_violation(resolve(facts, at_ms)):
            raise wrong


def bounds_violation(document: Document) -> Violation | None:
    """What a plan with its add-ons has too much of, or what it would give for free; ``None``: nothing."""
    for name, found, most in (
        ("limits", len(document.limits) + len(document.shadow), LIMITS_MAX),
        ("features", len(document.features), FEATURES_MAX),
        ("rates", len(document.rates), RATES_MAX),
        ("bytes of features' values", values_bytes(document.features), VALUES_BYTES_MAX),
    ):
        if found > most:
            return Violation("add_ons", f"and the plan have {found} {name} together", f"at most {most}")
    wrong = next(free_violations(document.features, document.limits, document.rates), None)
    return wrong and Violation("add_ons", f"and the plan together: {wrong.problem}", wrong.expected)


def _add_ons(connection: Connection, terms: Terms | None, orders: tuple[AddOnOrder, ...]) -> tuple[AddOn, ...]:
    held = {one.add_on: one.version for one in terms.add_ons} if terms else {}
    found: dict[str, AddOn] = {}
    for at, one in enumerate(orders):
        if one.add_on in found:
            problem = f"names {one.add_on!r} a second time"
            raise Violation(f"add_ons[{at}].add_on", problem, "each once, with a quantity")
        wanted = one.version or held.get(one.add_on)
        published = catalog.find_plan(connection, one.add_on, wanted, ADD_ONS)
        if published is None:
            which = f"add-on {one.add_on!r}" if wanted is None else f"version {wanted} of add-on {one.add_on!r}"
            raise NotFound("add_on_not_found", f"There is no {which}.", f"add_ons[{at}].add_on")
        found[one.add_on] = AddOn(one.add_on, published.version, one.quantity)
    return tuple(found[key] for key in sorted(found))


def _pinned(terms: Terms | None, plan: str) -> int | None:
    return terms.version if terms is not None and terms.plan == plan else None


def _newest(connection: Connection, plan: str) -> int:
    newest = catalog.find_plan(connection, plan)
    if newest is None:
        raise NotFound("plan_not_found", f"There is no plan {plan!r}.", "plan")
    return newest.version
