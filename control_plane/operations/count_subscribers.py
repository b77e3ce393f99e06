"""Says how many customers have which terms now: one count for each plan version with its add-ons."""

from __future__ import annotations

from control_plane.core import subscriptions as life
from control_plane.core.catalog import decode_plan
from control_plane.core.catalog_changes import Subscribers
from control_plane.core.subscriptions import Change, SubscriptionStatus, Terms, Track, terms_at
from control_plane.store import catalog, subscriptions
from control_plane.store.catalog import ADD_ONS, PLANS
from control_plane.store.database import Connection

OVER = (SubscriptionStatus.CANCELLED, SubscriptionStatus.EXPIRED)


def count_subscribers(connection: Connection, now_ms: int) -> list[Subscribers]:
    """Every subscription that is not over, paused ones included, counted by its terms.

    Reads what stands of every subscription once: some three seconds for 100,000 customers. For people who look, not for
    calls.
    """
    counts: list[tuple[Terms, int]] = []
    for values, customers in subscriptions.counts(connection, now_ms):
        changes = [Change(track, life.from_json(track, values[track]), 0) for track in Track if values.get(track)]
        terms = terms_at(changes, 0)
        if terms is not None and terms.status not in OVER:
            counts.append((terms, customers))
    plans = catalog.bodies(connection, {(terms.plan, terms.version) for terms, _ in counts}, PLANS)
    named = {(one.add_on, one.version) for terms, _ in counts for one in terms.add_ons}
    add_ons = catalog.bodies(connection, named, ADD_ONS)
    found = []
    for terms, customers in counts:
        bodies = [(decode_plan(plans[terms.plan, terms.version]), terms.plan, 1)]
        bodies += [(decode_plan(add_ons[one.add_on, one.version]), one.add_on, one.quantity) for one in terms.add_ons]
        found.append(Subscribers(terms, bodies, customers))
    return found
