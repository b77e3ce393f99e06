"""Moves subscribers from older versions of a plan or add-on to a newer one: a preview, or page by page, each once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import msgspec

from control_plane.core.arrangements import Arrangement, When, arrange, instant_of
from control_plane.core.catalog import decode_plan
from control_plane.core.entitlements import Facts, calendar_at, resolve
from control_plane.core.plan_migrations import Target, lowered, orders
from control_plane.core.subscriptions import Track, in_order, terms_at
from control_plane.operations.author import Author
from control_plane.operations.change_subscription import bounds_violation, record
from control_plane.operations.count_subscribers import OVER
from control_plane.operations.keep_entitlements import keep_entitlements
from control_plane.operations.refusals import NotFound
from control_plane.operations.resolve_entitlement import facts_of
from control_plane.store import balances, catalog, customers, subscriptions
from control_plane.store.catalog import ADD_ONS, PLANS
from control_plane.store.database import Connection
from protocol.windows import Calendar

PAGE = 25
"""Customers in one transaction: their rows are held, and on SQLite everybody else waits, until it ends."""

NAME_MAX = 40
SCOPE_VALUES_MAX = 1_000


class Below(msgspec.Struct, frozen=True):
    """A limit that falls below what is used of it in the present window, which it was not before.

    Attributes:
        used: with what calls in flight hold. before, after: its amount; ``None``: no such limit, or unlimited.
    """

    customer: str
    limit: str
    scope_value: str
    used: int
    before: int | None
    after: int


class Refused(msgspec.Struct, frozen=True):
    """A customer that cannot be moved, and why."""

    customer: str
    detail: str


@dataclass
class Migrated:
    """What one page did, or would do.

    Attributes:
        moved: customers that are moved. held_back: that this migration had moved, and somebody moved back: they stay.
        following: after which customer the next page begins; ``None``: that was all.
    """

    moved: list[str] = field(default_factory=list)
    held_back: list[str] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    below: list[Below] = field(default_factory=list)
    following: str | None = None


def migrate_plan(
    connection: Connection,
    name: str,
    target: Target,
    when: When | int,
    author: Author,
    *,
    apply: bool = False,
    after: str = "",
) -> Migrated:
    """Look at up to ``PAGE`` customers that have the plan or add-on, and with ``apply`` move those on an older version.

    Everything else stays: what is arranged for later comes, usage counts on, and a subscription that is over is left
    alone. A customer is moved once under a name; said again, it goes on where it was interrupted.

    Raises: NotFound: there is no such version. Violation: an instant that has passed.
    """
    body = _body(connection, target)
    names = subscriptions.that_named(connection, target.track.value, target.key, after, PAGE + 1)
    found = Migrated(following=names[PAGE - 1] if len(names) > PAGE else None)
    names = names[:PAGE]
    if apply:
        customers.hold(connection, names)
    cause = f"{target.track.value}.migrate:{name}"
    done = subscriptions.caused(connection, names, cause)
    for customer, facts in sorted(facts_of(connection, names).items()):
        planned = _planned(facts, target, when, author.now_ms)
        if planned is None:
            continue
        if customer in done:
            found.held_back.append(customer)
            continue
        arranged, at_ms = planned
        then = _with(facts, target, body, arranged)
        instants = {at_ms, *(one.from_ms for one in arranged.changes)}
        wrong = next(filter(None, (bounds_violation(resolve(then, instant)) for instant in sorted(instants))), None)
        if wrong is not None:
            found.refused.append(Refused(customer, wrong.message))
            continue
        found.moved.append(customer)
        found.below += _below(connection, customer, facts, then, at_ms, author.now_ms)
        if apply:
            record(connection, customer, arranged, cause, author)
    if apply and found.moved:
        keep_entitlements(connection, found.moved, author.now_ms, cause)
    return found


def _body(connection: Connection, target: Target) -> str:
    shelf = PLANS if target.track is Track.PLAN else ADD_ONS
    published = catalog.find_plan(connection, target.key, target.to, shelf)
    if published is None:
        what = "Plan" if target.track is Track.PLAN else "Add-on"
        detail = f"{what} {target.key!r} has no version {target.to}."
        raise NotFound(f"{shelf.key}_version_not_found", detail, "to")
    return published.body


def _planned(facts: Facts, target: Target, when: When | int, now_ms: int) -> tuple[Arrangement, int] | None:
    """What is to be arranged, and from when on; ``None``: nothing."""
    terms = terms_at(facts.changes, now_ms)
    if terms is not None and terms.status in OVER:
        return None
    # What begins later is moved before it begins.
    from_ms = now_ms if terms is None else instant_of(when, terms, now_ms)
    wanted = orders(facts.changes, target, from_ms, now_ms)
    return None if wanted is None else (arrange(facts.changes, wanted, now_ms), from_ms)


def _with(facts: Facts, target: Target, body: str, arranged: Arrangement) -> Facts:
    """The same with what is arranged."""
    kept = [one for one in in_order(facts.changes) if one.serial not in arranged.replaced]
    last = max((one.serial for one in kept), default=0)
    new = [one._replace(serial=last + at) for at, one in enumerate(arranged.changes, 1)]
    bodies = {(target.key, target.to): decode_plan(body)}
    if target.track is Track.PLAN:
        return replace(facts, changes=(*kept, *new), plans={**facts.plans, **bodies})
    return replace(facts, changes=(*kept, *new), add_ons={**facts.add_ons, **bodies})


def _below(
    connection: Connection, customer: str, facts: Facts, then: Facts, at_ms: int, now_ms: int
) -> Iterator[Below]:
    calendar = calendar_at(facts, now_ms) or Calendar()
    for limit, before in lowered(resolve(facts, at_ms), resolve(then, at_ms)):
        start_ms = limit.window_at(now_ms, calendar).start_ms
        for row in balances.counted(connection, customer, limit.counter, start_ms, count=SCOPE_VALUES_MAX):
            used = row.charged + row.settled + row.in_flight
            assert limit.amount is not None
            if limit.amount < used and (before is None or used <= before):
                yield Below(customer, limit.key, row.scope_value, used, before, limit.amount)
