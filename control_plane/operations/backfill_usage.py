"""Enters events that no agent saw: as if an agent had reported them then, each with its own result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from control_plane.core import reconciliation
from control_plane.core.catalog import BUILT_IN_METERS
from control_plane.core.entitlements import Facts, next_change_ms, resolve
from control_plane.operations.author import Author
from control_plane.operations.change_customer import require_customer
from control_plane.operations.correct_usage import MAKER, Item, ItemResult, Outcome, remember, remembered
from control_plane.operations.enter_corrections import enter_corrections, place_of
from control_plane.operations.resolve_entitlement import facts_of
from control_plane.store import catalog, custody, events
from control_plane.store.database import Connection
from protocol.codec import encode_msgpack
from protocol.events import Outcome as CallOutcome
from protocol.events import Subject, UsageEvent, UsageSource
from protocol.ids import Key, ModelName, Tags
from protocol.instants import InstantMs
from protocol.rates import RateCard
from protocol.units import METERS_MAX, QUANTITY_MAX, Amounts, normalise
from protocol.violations import Violation

EVENTS_MAX = 500


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


class Backfill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order: these calls, and why."""

    events: Annotated[tuple[Missed, ...], msgspec.Meta(min_length=1, max_length=EVENTS_MAX)]
    reason: str = ""


def backfill_usage(connection: Connection, customer: str, correction: str, order: Backfill, author: Author) -> Outcome:
    """Enter what was missed; the same said twice changes nothing, and answers the same.

    Raises: NotFound: no such customer. Conflict: another order was given under this id.
    """
    require_customer(connection, customer, lock=True)
    known = remembered(connection, customer, correction, order)
    if known is not None:
        return known
    grace_ms = custody.present(connection).generation.grace_ms
    prices = _Prices(connection, customer)
    results: dict[int, Item] = {}
    made: dict[str, UsageEvent] = {}
    again: list[tuple[int, UsageEvent]] = []
    for at, missed in enumerate(order.events):
        try:
            event = prices.event(missed, author.now_ms)
        except Violation as violation:
            results[at] = Item(missed.event, ItemResult.REJECTED, violation.message)
            continue
        if reconciliation.is_late(missed.at_ms, author.now_ms, grace_ms):
            detail = f"older than {grace_ms // 86_400_000} days; kept for review, not counted"
            results[at] = Item(missed.event, ItemResult.LATE, detail)
            _keep(connection, event, author.now_ms)
        elif made.setdefault(missed.event, event) is event:
            results[at] = Item(missed.event, ItemResult.ACCEPTED)
        else:
            again.append((at, event))
    entered = enter_corrections(connection, customer, MAKER, list(made.values()), author)
    again += [
        (at, made[one.event])
        for at, one in results.items()
        if one.result is ItemResult.ACCEPTED and one.event not in entered.names
    ]
    results |= _repeated(connection, customer, again)
    outcome = Outcome(tuple(results[at] for at in sorted(results)), entered.effects)
    remember(connection, customer, correction, "backfill", order, outcome, author)
    return outcome


def _repeated(connection: Connection, customer: str, again: Sequence[tuple[int, UsageEvent]]) -> dict[int, Item]:
    """Ids that were there before: the same words are a duplicate, other words a conflict."""
    stored = events.digests(connection, [(customer, event.event) for _, event in again]) if again else {}
    found = {}
    for at, event in again:
        same = stored.get((customer, event.event)) == reconciliation.digest(event)
        detail = "" if same else "another event was accepted under this id; amend that one, or use a new id"
        found[at] = Item(event.event, ItemResult.DUPLICATE if same else ItemResult.CONFLICT, detail)
    return found


def _keep(connection: Connection, event: UsageEvent, now_ms: int) -> None:
    """For people to look at, once however often it is said."""
    journal, body = f"{MAKER}~{place_of(event)}", encode_msgpack(event)
    if (0, body) in events.kept_at_places(connection, journal, 0, 0, 0):
        return
    row = events.Conflict(event.customer, event.event, MAKER, journal, 0, 0, ItemResult.LATE.value, body, now_ms)
    events.keep_conflicts(connection, [row])


class _Prices:
    """Makes events of calls that were missed: under the rates that the customer had then."""

    def __init__(self, connection: Connection, customer: str) -> None:
        self._customer = customer
        self._facts: Facts = facts_of(connection, [customer])[customer]
        self._meters = {*BUILT_IN_METERS, *catalog.meter_names(connection)}
        self._features = set(catalog.feature_kinds(connection))
        self._known: list[tuple[int, int, RateCard]] = []

    def event(self, missed: Missed, now_ms: int) -> UsageEvent:
        """Raises: Violation: what no agent would have accepted."""
        if missed.at_ms > now_ms + reconciliation.EARLY_MS_MAX:
            raise Violation("at", "is an instant to come", "one that has passed")
        if missed.feature not in self._features:
            raise Violation("feature", f"is {missed.feature!r}, which nobody knows", "one that is in the catalog")
        reported = normalise(missed.amounts, missed.tokens)
        for meter in reported:
            if meter not in self._meters:
                raise Violation(f"amounts.{meter}", "is no meter that is known", "one that is in the catalog")
        choice = self._card(missed.at_ms).choose(missed.feature, missed.model)
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
            customer=self._customer,
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

    def _card(self, at_ms: int) -> RateCard:
        """The rates of that instant: resolved once for all instants between two changes."""
        for from_ms, to_ms, card in self._known:
            if from_ms <= at_ms < to_ms:
                return card
        document = resolve(self._facts, at_ms)
        card = RateCard(document.rates, document.plan)
        self._known.append((at_ms, next_change_ms(self._facts, at_ms) or 2**62, card))
        return card
