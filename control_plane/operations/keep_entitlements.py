"""Writes down what customers may use, whenever it has changed: by somebody, or by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from control_plane.core import entitlements as rules
from control_plane.core.entitlements import Document, Facts
from control_plane.core.notices import NoticeKind
from control_plane.operations.keep_credits import keep_credits
from control_plane.operations.resolve_entitlement import decode_document, facts_of
from control_plane.operations.tell_thresholds import look_at_changed
from control_plane.store import changes, customers, entitlements, notices
from control_plane.store.customers import Resolved
from control_plane.store.database import Connection
from control_plane.store.notices import Notice
from protocol.windows import Calendar

BATCH_MAX = 200
"""So many customers are resolved in one transaction."""

BY_ITSELF = "time"
"""The cause of a change that nobody made at that moment."""


def keep_entitlements(connection: Connection, names: Iterable[str], now_ms: int, cause: str) -> list[str]:
    """Resolve these customers as of now; where it differs, their next version, with a word to every agent.

    Last in a transaction: the change feed is held until its end.

    Returns: the customers whose entitlement has changed.
    """
    facts = facts_of(connection, names)
    moved = [name for name, known in sorted(facts.items()) if keep_credits(connection, name, known, now_ms)]
    facts |= facts_of(connection, moved)
    held = {row.customer: row for row in customers.resolved(connection, facts)}
    told: list[Notice] = []
    changed = [name for name in sorted(facts) if _keep(connection, held[name], facts[name], now_ms, cause, told)]
    for name in moved:
        if name not in changed:  # the same may be used, of other grants
            told += look_at_changed(connection, name, *_now(facts[name], now_ms), now_ms)
    notices.append(connection, told, now_ms)
    changes.append(connection, [changes.Change(name, changes.ENTITLEMENT) for name in changed], now_ms)
    return changed


def any_due(connection: Connection, now_ms: int) -> bool:
    """Whether somebody's entitlement changes by itself about now."""
    return bool(customers.due(connection, now_ms, 1))


def keep_due(connection: Connection, now_ms: int) -> int:
    """Resolve customers whose entitlement changes by itself about now, up to ``BATCH_MAX``; how many there were."""
    due = customers.due(connection, now_ms, BATCH_MAX)
    if due:
        customers.hold(connection, due)
        keep_entitlements(connection, due, now_ms, BY_ITSELF)
    return len(due)


def _now(facts: Facts, now_ms: int) -> tuple[Document, Calendar]:
    return rules.resolve(facts, now_ms), rules.calendar_at(facts, now_ms) or Calendar()


def _keep(connection: Connection, held: Resolved, facts: Facts, now_ms: int, cause: str, told: list[Notice]) -> bool:
    resolved, calendar = _now(facts, now_ms)
    body = msgspec.json.encode(resolved).decode()
    document = entitlements.key_of(body)
    ends_at_ms = rules.ends_at_ms(facts, now_ms)
    # Agents are sent what has a newer version; when it will end is a part of what they decide by.
    differs = (document, ends_at_ms) != (held.document, held.ends_at_ms)
    version = held.version + 1 if differs and held.document is not None else held.version
    wanted = Resolved(
        customer=held.customer,
        version=version,
        document=document,
        changes_at_ms=rules.next_change_ms(facts, now_ms),
        ends_at_ms=ends_at_ms,
        anchor_ms=calendar.anchor_ms,
        zone=calendar.zone,
        period_months=calendar.months,
    )
    if wanted == held:
        return False
    if differs:
        entitlements.keep_document(connection, document, body)
        entitlements.add_version(connection, held.customer, version, document, now_ms, cause)
        if held.document is not None:
            old = decode_document(entitlements.document(connection, held.document))
            told += _changes(held.customer, old, resolved)
        told += look_at_changed(connection, held.customer, resolved, calendar, now_ms)
    customers.put_resolved(connection, wanted)
    return differs


def _changes(customer: str, old: Document, new: Document) -> Iterator[Notice]:
    """What people are told of a subscription that has changed."""
    if old.subscription != new.subscription:
        yield Notice(customer, NoticeKind.STATUS_CHANGED.value, {"before": old.subscription, "after": new.subscription})
    if (old.plan, old.add_ons) != (new.plan, new.add_ons):
        before, after = ({"plan": one.plan, "add_ons": list(one.add_ons)} for one in (old, new))
        yield Notice(customer, NoticeKind.PLAN_CHANGED.value, {"before": before, "after": after})
