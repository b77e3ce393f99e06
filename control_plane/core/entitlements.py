"""Resolves what a customer may use at an instant from all that the control plane knows of it. Pure: the same facts give
the same document, whenever it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from control_plane.core import combining, overrides, subscriptions
from control_plane.core.combining import Combine, Source
from control_plane.core.credits import Pool
from control_plane.core.overrides import Override
from control_plane.core.plans import PlanBody, PlanGrant, PlanLimit
from control_plane.core.subscriptions import Change, SubscriptionStatus, Terms, Trial
from protocol.entitlements import CustomerStatus, Entitlement, Feature, Limit, Rate
from protocol.events import UnfinishedCalls
from protocol.units import QUANTITY_MAX
from protocol.windows import Calendar, WindowKind, window_at


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An entitlement without what differs from customer to customer: equal terms give equal documents.

    Attributes:
        status: what agents are told; ``subscription``: what people call it, empty without one.
        limits: what agents enforce. shadow: what is counted and never refused.
        authored: the limits as the plan and its add-ons say them, merged: thresholds, prices, by key.
        sources: by limit and feature, where the value comes from, in order.
    """

    status: CustomerStatus
    subscription: str = ""
    plan: str = ""
    add_ons: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()
    limits: tuple[Limit, ...] = ()
    shadow: tuple[Limit, ...] = ()
    rates: tuple[Rate, ...] = ()
    unfinished_calls: UnfinishedCalls = UnfinishedCalls.ESTIMATED
    authored: tuple[PlanLimit, ...] = ()
    sources: dict[str, tuple[Source, ...]] = {}

    def entitlement(
        self, customer: str, version: int, meters: tuple[str, ...], ends_in_ms: int | None = None
    ) -> Entitlement:
        """What agents are told.

        Args:
            meters: every meter of the catalog, built-in ones included.
        """
        return Entitlement(
            customer=customer,
            version=version,
            status=self.status,
            plan=self.plan,
            features=self.features,
            limits=self.limits,
            meters=meters,
            ends_in_ms=ends_in_ms,
            rates=self.rates,
            unfinished_calls=self.unfinished_calls,
        )


@dataclass(frozen=True)
class CatalogRules:
    """What the catalog says of features and meters beyond any plan.

    Attributes:
        combine: by feature or meter (``feature:chat``, ``meter:images``), how plan and add-ons become one.
        disabled: features that are switched off for everybody.
    """

    combine: Mapping[str, Combine] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Facts:
    """What decides a customer's entitlement, for all times.

    Attributes:
        changes: of its subscription, those to come included.
        pools: its credits, by meter.
        plans, add_ons: every version that its changes name.
    """

    archived: bool = False
    changes: tuple[Change, ...] = ()
    overrides: tuple[Override, ...] = ()
    pools: Mapping[str, Pool] = field(default_factory=dict)
    plans: Mapping[tuple[str, int], PlanBody] = field(default_factory=dict)
    add_ons: Mapping[tuple[str, int], PlanBody] = field(default_factory=dict)
    rules: CatalogRules = CatalogRules()


NOTHING = Document(CustomerStatus.NO_SUBSCRIPTION)


def resolve(facts: Facts, at_ms: int) -> Document:
    """The document as of an instant.

    A subscription that gives nothing at the moment keeps its limits in the document, so that usage that arrives late is
    still counted against them; its status alone refuses every call.
    """
    terms = subscriptions.terms_at(facts.changes, at_ms)
    if terms is None:
        return msgspec.structs.replace(NOTHING, status=CustomerStatus.ARCHIVED) if facts.archived else NOTHING
    in_force = overrides.active(facts.overrides, at_ms)
    bodies = list(_bodies(facts, terms))
    sources: dict[str, tuple[Source, ...]] = {}
    features = tuple(
        _switched(overrides.with_feature(feature, in_force), facts.rules)
        for feature in combining.features(bodies, facts.rules.combine, sources)
    )
    authored = _prorated(facts, terms, combining.limits(bodies, facts.rules.combine, terms.seats, sources), at_ms)
    for one in in_force:
        target = one.body.limit or one.body.feature or ""
        sources[target] = (*sources.get(target, ()), Source(f"override:{one.override}", one.body.amount))
    enforced = [
        (own, overrides.with_limit(_filled(facts, limit, at_ms), in_force))
        for own in authored
        for limit in own.enforced()
    ]
    status = terms.status
    return Document(
        status=CustomerStatus.ARCHIVED if facts.archived else _status(terms),
        subscription=status.value,
        plan=f"{terms.plan}@{terms.version}",
        add_ons=tuple(f"{one.add_on}@{one.version} x{one.quantity}" for one in terms.add_ons),
        features=features,
        limits=tuple(limit for own, limit in enforced if not own.shadow),
        shadow=tuple(limit for own, limit in enforced if own.shadow),
        rates=combining.rates(bodies),
        unfinished_calls=facts.plans[terms.plan, terms.version].unfinished_calls,
        authored=authored,
        sources=sources,
    )


def next_change_ms(facts: Facts, after_ms: int) -> int | None:
    """The first instant after this one at which the document may change by itself; ``None``: never."""
    instants = [subscriptions.next_change_ms(facts.changes, after_ms)]
    instants += [edge for edge in overrides.edges(facts.overrides) if edge > after_ms]
    instants += [edge for pool in facts.pools.values() for edge in pool.edges() if edge > after_ms]
    terms = subscriptions.terms_at(facts.changes, after_ms)
    if terms is not None:
        windows = {limit.window for body, _, _ in _bodies(facts, terms) for limit in body.limits if limit.prorate}
        windows |= {grant.every for grant, _, _ in given(facts, terms) if grant.every is not WindowKind.LIFETIME}
        instants += [window_at(kind, after_ms, terms.calendar).end_ms for kind in windows]
    return min((instant for instant in instants if instant is not None), default=None)


def ends_at_ms(facts: Facts, at_ms: int) -> int | None:
    """When the customer will be refused everything, by what is arranged now."""
    return None if facts.archived else subscriptions.ends_at_ms(facts.changes, at_ms)


def calendar_at(facts: Facts, at_ms: int) -> Calendar | None:
    """By which calendar its windows are told; ``None`` without a subscription."""
    terms = subscriptions.terms_at(facts.changes, at_ms)
    return None if terms is None else terms.calendar


def given(facts: Facts, terms: Terms) -> Iterator[tuple[PlanGrant, str, int]]:
    """Credit that comes with these terms, from what, and how much in one window."""
    for body, name, quantity in _bodies(facts, terms):
        for grant in body.grants:
            yield grant, name, min(grant.amount * quantity * (terms.seats if grant.per_seat else 1), QUANTITY_MAX)


def _filled(facts: Facts, limit: Limit, at_ms: int) -> Limit:
    """A balance allows what its grants give."""
    if limit.window is not WindowKind.GRANTS:
        return limit
    amount = facts.pools.get(limit.meter, Pool()).ceiling(at_ms)
    return msgspec.structs.replace(limit, amount=min(amount, QUANTITY_MAX - limit.overage_max))


def _bodies(facts: Facts, terms: Terms) -> Iterator[tuple[PlanBody, str, int]]:
    """What the plan and each add-on say, what each is called, and how many there are of it."""
    yield facts.plans[terms.plan, terms.version], f"plan:{terms.plan}@{terms.version}", 1
    for one in terms.add_ons:
        yield facts.add_ons[one.add_on, one.version], f"add_on:{one.add_on}@{one.version}", one.quantity


def _switched(feature: Feature, rules: CatalogRules) -> Feature:
    if feature.key not in rules.disabled:
        return feature
    return Feature(feature.key, feature.kind, enabled=False, value=feature.value)


def _status(terms: Terms) -> CustomerStatus:
    match terms.status:
        case SubscriptionStatus.TRIALING | SubscriptionStatus.ACTIVE | SubscriptionStatus.PAST_DUE:
            return CustomerStatus.ACTIVE
        case SubscriptionStatus.PAUSED:
            return CustomerStatus.PAUSED
        case SubscriptionStatus.CANCELLED:
            return CustomerStatus.CANCELLED
        case SubscriptionStatus.EXPIRED:
            return CustomerStatus.TRIAL_ENDED if terms.trial is Trial.ENDED else CustomerStatus.EXPIRED


def _prorated(facts: Facts, terms: Terms, limits: tuple[PlanLimit, ...], at_ms: int) -> tuple[PlanLimit, ...]:
    return tuple(_prorate(facts, terms, limit, at_ms) if limit.prorate else limit for limit in limits)


def _prorate(facts: Facts, terms: Terms, limit: PlanLimit, at_ms: int) -> PlanLimit:
    """The window's amount: what was given for each part of the window, by time, whole units rounded down.

    Time before the subscription began gives nothing, so a first window that is shorter gives less; time in which it
    was paused counts like any other. What follows the instant counts as it is now.
    """
    window = limit.window_at(at_ms, terms.calendar)
    total = 0
    now_ms = at_ms + 1
    for start_ms, end_ms, then in subscriptions.segments(facts.changes, window.start_ms, now_ms):
        amount = _amount(facts, then, limit.counter)
        if amount is None:
            return msgspec.structs.replace(limit, amount=None, overage_max=0)
        total += amount * ((window.end_ms if end_ms == now_ms else end_ms) - start_ms)
    amount = min(total // (window.end_ms - window.start_ms), QUANTITY_MAX - limit.overage_max)
    return msgspec.structs.replace(limit, amount=amount)


def _amount(facts: Facts, terms: Terms | None, counter: str) -> int | None:
    """What one counter allowed in a window of these terms; 0 where they had no such limit."""
    if terms is None:
        return 0
    found = combining.limits(list(_bodies(facts, terms)), facts.rules.combine, terms.seats, {})
    return next((limit.amount for limit in found if limit.counter == counter), 0)
