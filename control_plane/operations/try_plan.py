"""What-if: who would have been refused, and when, had a plan that is not published counted for what was really used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from control_plane.core.catalog import compose_plan
from control_plane.core.entitlements import Facts, calendar_at, resolve
from control_plane.core.plans import Bundle
from control_plane.core.subscriptions import Change, Track
from control_plane.core.what_if import PastCall, Replay, replay
from control_plane.operations.pin_price_books import pin_price_books
from control_plane.operations.resolve_entitlement import facts_of
from control_plane.store import catalog, events, subscriptions
from control_plane.store.database import Connection
from protocol.codec import MsgpackDecoder
from protocol.events import UsageEvent
from protocol.violations import Violation
from protocol.windows import Calendar

EVENTS_MAX = 200_000
"""So many events of all customers together are replayed: this reads the log, and is for people who plan."""

CUSTOMERS_MAX = 1_000

_event = MsgpackDecoder(UsageEvent)


@dataclass(frozen=True)
class Trial:
    """What would have happened to one customer. ``plan``: what it has; ``cut``: not all of its events."""

    customer: str
    plan: str
    replay: Replay
    cut: bool


def try_plan(
    connection: Connection,
    bundle: Bundle,
    names: Sequence[str],
    plan: str | None,
    from_ms: int,
    to_ms: int,
) -> list[Trial]:
    """Replay the use of customers, with their add-ons and overrides, against the bundle as their plan.

    Args:
        names: these customers; plan: and those that are on this plan now. from_ms, to_ms: ``from_ms <= t < to_ms``.

    Raises: Violation: the bundle breaks a rule of plans, or nobody or too many are asked for. NotFound: a price book.
    """
    pinned, rates = pin_price_books(connection, bundle.price_books)
    body = compose_plan(bundle, catalog.feature_kinds(connection), set(catalog.meter_names(connection)), pinned, rates)
    chosen = subscriptions.that_chose(connection, plan, "", CUSTOMERS_MAX + 1) if plan else []
    wanted = sorted({*names, *chosen})
    if len(wanted) > CUSTOMERS_MAX:
        raise Violation("customers", f"are more than {CUSTOMERS_MAX}", f"up to {CUSTOMERS_MAX}")
    found, left = [], EVENTS_MAX
    for name, facts in sorted(facts_of(connection, wanted).items()):
        now = resolve(facts, to_ms)
        if name not in names and now.plan.partition("@")[0] != plan:
            continue
        tried = Facts(
            changes=(*facts.changes, Change(Track.PLAN, ("what-if", 1), from_ms, 2**62)),
            overrides=facts.overrides,
            pools=facts.pools,
            plans={**facts.plans, ("what-if", 1): body},
            add_ons=facts.add_ons,
            rules=facts.rules,
        )
        bodies = list(events.bodies_between(connection, name, from_ms, to_ms, left + 1))
        outcome = replay(resolve(tried, to_ms), _calls(bodies[:left]), calendar_at(tried, to_ms) or Calendar())
        found.append(Trial(name, now.plan, outcome, cut=len(bodies) > left))
        left -= min(left, len(bodies))
    if not found:
        raise Violation("customers", "are none", "customers that there are, or a plan that somebody has")
    return found


def _calls(bodies: Iterable[bytes]) -> Iterator[PastCall]:
    for body in bodies:
        event = _event(body)
        if event.corrects is None:
            said = {meter: amount for meter, amount in event.amounts.items() if meter not in event.derived}
            yield PastCall(event.at_ms, event.feature, event.model, event.subject, event.tags, said, event.tokens)
