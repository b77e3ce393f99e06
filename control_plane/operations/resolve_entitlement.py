"""Says what customers may use now, and by which calendar their windows are told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from control_plane.core import entitlements as rules
from control_plane.core import subscriptions as life
from control_plane.core.catalog import BUILT_IN_METERS, decode_plan
from control_plane.core.combining import Combine
from control_plane.core.credits import Grant, Pool
from control_plane.core.entitlements import CatalogRules, Document, Facts
from control_plane.core.overrides import Override, OverrideBody
from control_plane.core.plans import PlanLimit
from control_plane.core.subscriptions import Change, Track
from control_plane.operations.burn_credits import grant_of
from control_plane.store import catalog, credits, customers, overrides, subscriptions
from control_plane.store.catalog import ADD_ONS, PLANS
from control_plane.store.customers import HolderRow
from control_plane.store.database import Connection
from protocol.entitlements import Entitlement, Limit
from protocol.windows import Calendar


class Standing(NamedTuple):
    """What customers may use.

    Attributes:
        calendars: by which their windows are told. changes_at_ms: when what they may use changes by itself, where it
            does. shadow: limits that are counted and never refused. authored: limits as plan and add-ons say them.
        closed_until: before when billing periods are closed.
    """

    entitlements: dict[str, Entitlement]
    calendars: dict[str, Calendar]
    changes_at_ms: dict[str, int]
    shadow: dict[str, tuple[Limit, ...]]
    authored: dict[str, tuple[PlanLimit, ...]]
    closed_until: dict[str, int]


def entitlement_of(connection: Connection, customer: str, now_ms: int) -> Entitlement | None:
    """What the customer may use now; ``None`` for a customer that nobody knows."""
    return entitlements_of(connection, [customer], now_ms).get(customer)


def entitlements_of(connection: Connection, names: Iterable[str], now_ms: int) -> dict[str, Entitlement]:
    """The same for many customers, in a handful of statements; unknown customers are left out."""
    return standing_of(connection, names, now_ms).entitlements


def standing_of(connection: Connection, names: Iterable[str], now_ms: int) -> Standing:
    """All of it for many customers.

    What was resolved last is read, as long as it holds; what changes by itself at this very moment is resolved anew,
    so that no answer depends on how soon somebody writes it down (:mod:`control_plane.operations.keep_entitlements`).
    """
    return standing_of_rows(connection, list(customers.holders(connection, names)), now_ms)


def standing_of_rows(connection: Connection, rows: Sequence[HolderRow], now_ms: int) -> Standing:
    """The same where what was resolved last has been read."""
    stale = facts_of(connection, [row.customer for row in rows if not _holds(row, now_ms)])
    found = Standing({}, {}, {}, {}, {}, {})
    for row in rows:
        facts = stale.get(row.customer)
        if facts is None:
            document, ends_at_ms, changes_at_ms = decode_document(row.body or ""), row.ends_at_ms, row.changes_at_ms
            calendar = Calendar(row.anchor_ms, row.zone, row.period_months)
        else:
            document, ends_at_ms = rules.resolve(facts, now_ms), rules.ends_at_ms(facts, now_ms)
            calendar = rules.calendar_at(facts, now_ms) or Calendar()
            changes_at_ms = rules.next_change_ms(facts, now_ms)
        ends_in_ms = None if ends_at_ms is None else max(0, ends_at_ms - now_ms)
        found.entitlements[row.customer] = document.entitlement(
            row.customer, row.version, _meters(row.meters), ends_in_ms
        )
        found.calendars[row.customer] = calendar
        if changes_at_ms is not None:
            found.changes_at_ms[row.customer] = changes_at_ms
        found.authored[row.customer] = document.authored
        found.closed_until[row.customer] = row.closed_until_ms
        if document.shadow:
            found.shadow[row.customer] = document.shadow
    return found


def document_of(connection: Connection, customer: str, now_ms: int) -> Document | None:
    """All that was resolved of a customer, sources included; ``None`` for one that nobody knows."""
    for row in customers.holders(connection, [customer]):
        if _holds(row, now_ms):
            return decode_document(row.body or "")
        return rules.resolve(facts_of(connection, [customer])[customer], now_ms)
    return None


def calendar_of(connection: Connection, customer: str, now_ms: int) -> Calendar:
    """By which calendar the customer's windows are told; that of UTC without a subscription."""
    return standing_of(connection, [customer], now_ms).calendars.get(customer, Calendar())


def facts_of(connection: Connection, names: Iterable[str]) -> dict[str, Facts]:
    """What decides the entitlements of these customers, for all times; unknown ones are left out."""
    known = {row.customer: row for row in customers.known(connection, names)}
    if not known:
        return {}
    changes = {
        name: tuple(change_of(row) for row in rows) for name, rows in subscriptions.of(connection, known).items()
    }
    plans = {tuple(one.value) for some in changes.values() for one in some if one.track is Track.PLAN}
    add_ons = {
        (add_on.add_on, add_on.version)
        for some in changes.values()
        for one in some
        if one.track is Track.ADD_ONS
        for add_on in one.value
    }
    made = overrides.of(connection, known)
    pools = pools_of(connection, known)
    combine, disabled = catalog.rules(connection)
    plan_bodies = {key: decode_plan(text) for key, text in catalog.bodies(connection, plans, PLANS).items()}
    add_on_bodies = {key: decode_plan(text) for key, text in catalog.bodies(connection, add_ons, ADD_ONS).items()}
    catalog_rules = CatalogRules({key: Combine(rule) for key, rule in combine.items()}, frozenset(disabled))
    return {
        name: Facts(
            archived=row.archived_at_ms is not None,
            changes=changes.get(name, ()),
            overrides=tuple(override_of(one) for one in made.get(name, ())),
            pools=pools.get(name, {}),
            plans=plan_bodies,
            add_ons=add_on_bodies,
            rules=catalog_rules,
        )
        for name, row in known.items()
    }


def pools_of(connection: Connection, names: Iterable[str]) -> dict[str, dict[str, Pool]]:
    """Credits of these customers, by meter."""
    burned = credits.closed_burned(connection, names)
    grants: dict[tuple[str, str], list[Grant]] = {key: [] for key in burned}
    for row in credits.open_grants(connection, names):
        grants.setdefault((row.customer, row.meter), []).append(grant_of(row))
    found: dict[str, dict[str, Pool]] = {}
    for (customer, meter), some in grants.items():
        found.setdefault(customer, {})[meter] = Pool(burned.get((customer, meter), 0), tuple(some))
    return found


def change_of(row: subscriptions.ChangeRow) -> Change:
    """A change as the core sees it."""
    track = Track(row.track)
    return Change(track, life.from_json(track, row.value), row.from_ms, row.change)


def override_of(row: overrides.OverrideRow) -> Override:
    """An override as the core sees it."""
    body = msgspec.json.decode(row.body, type=OverrideBody)
    return Override(row.override, body, row.from_ms, row.until_ms, row.serial)


@lru_cache(maxsize=4096)
def decode_document(text: str) -> Document:
    """A document from its stored text; the same text gives the same (immutable) object."""
    return msgspec.json.decode(text, type=Document)


@lru_cache(maxsize=8)
def _meters(declared: str | None) -> tuple[str, ...]:
    return tuple(sorted({*BUILT_IN_METERS, *(declared or "").split(",")} - {""}))


def _holds(row: HolderRow, now_ms: int) -> bool:
    return row.body is not None and (row.changes_at_ms is None or now_ms < row.changes_at_ms)
