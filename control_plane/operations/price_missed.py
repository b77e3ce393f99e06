"""Makes events of calls that no agent saw: under the rates that their customers had then."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from control_plane.core import reconciliation
from control_plane.core.catalog import BUILT_IN_METERS
from control_plane.core.entitlements import next_change_ms, resolve
from control_plane.operations.resolve_entitlement import facts_of
from control_plane.store import catalog
from control_plane.store.database import Connection
from protocol.events import Outcome as CallOutcome
from protocol.events import Subject, UsageEvent, UsageSource
from protocol.ids import Key, ModelName, Tags
from protocol.instants import INSTANT_MS_MAX, InstantMs
from protocol.rates import RateCard
from protocol.units import METERS_MAX, QUANTITY_MAX, Amounts, normalise
from protocol.violations import Violation


class Missed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call that no agent saw, as its caller would have reported it."""

    event: Key
    feature: Key
    at_ms: InstantMs
    amounts: Amounts = {}
    tokens: Amounts = {}
    subject: Subject = Subject()
    tags: Tags = {}
    model: ModelName | None = None
    provider: Key | None = None
    usage_source: UsageSource = UsageSource.PROVIDER
    outcome: CallOutcome = CallOutcome.COMPLETE


class Pricing:
    """The rates that customers had at any time, and what else decides which events can be."""

    def __init__(self, connection: Connection, calls: Iterable[tuple[str, Missed]]) -> None:
        instants = sorted({(customer, one.at_ms) for customer, one in calls})
        self._facts = facts_of(connection, {customer for customer, _ in instants})
        self._meters = {*BUILT_IN_METERS, *catalog.meter_names(connection)}
        self._features = set(catalog.feature_kinds(connection))
        self._cards: dict[str, list[tuple[int, int, RateCard]]] = {customer: [] for customer in self._facts}
        for customer, at_ms in instants:  # the earliest first: each card is found once, whatever the order of the calls
            if customer in self._facts:
                self._card(customer, at_ms)

    @property
    def known(self) -> frozenset[str]:
        """Those of the customers that there are."""
        return frozenset(self._facts)

    def event(self, customer: str, missed: Missed, now_ms: int) -> UsageEvent:
        """The event of a call; as it was reported where nobody knows the customer.

        Raises: Violation: what no agent would have accepted.
        """
        if missed.at_ms > now_ms + reconciliation.EARLY_MS_MAX:
            raise Violation("at", "is an instant to come", "one that has passed")
        if missed.feature not in self._features:
            raise Violation("feature", f"is {missed.feature!r}, which nobody knows", "one that is in the catalog")
        reported = normalise(missed.amounts, missed.tokens)
        for meter in reported:
            if meter not in self._meters:
                raise Violation(f"amounts.{meter}", "is no meter that is known", "one that is in the catalog")
        card = self._card(customer, missed.at_ms) if customer in self._facts else RateCard(())
        choice = card.choose(missed.feature, missed.model)
        for meter in choice.meters:
            if meter in reported:
                raise Violation(f"amounts.{meter}", "is made by rates of the others", "what callers report")
        expired = missed.outcome is CallOutcome.EXPIRED
        derived = choice.most(reported) if expired else choice.exact(reported, missed.tokens)
        if (unpriced := choice.unpriced(derived)) is not None:
            raise Violation("model", f"has no price in {unpriced}", "a model of the plan")
        amounts = {**reported, **derived}
        if len(amounts) > METERS_MAX or any(amount > QUANTITY_MAX for amount in amounts.values()):
            raise Violation("amounts", "are more than one event can say", f"{METERS_MAX} meters up to {QUANTITY_MAX}")
        return UsageEvent(
            event=missed.event,
            customer=customer,
            feature=missed.feature,
            at_ms=missed.at_ms,
            amounts=amounts,
            subject=missed.subject,
            tags=missed.tags,
            model=missed.model,
            provider=missed.provider,
            tokens=missed.tokens,
            usage_source=missed.usage_source,
            outcome=missed.outcome,
            derived=choice.meters,
            priced=choice.priced,
        )

    def _card(self, customer: str, at_ms: int) -> RateCard:
        """The rates of that instant: resolved once for all instants between two changes."""
        cards = self._cards[customer]
        for from_ms, to_ms, card in cards:
            if from_ms <= at_ms < to_ms:
                return card
        document = resolve(self._facts[customer], at_ms)
        card = RateCard(document.rates, document.plan)
        cards.append((at_ms, next_change_ms(self._facts[customer], at_ms) or INSTANT_MS_MAX + 1, card))
        return card
