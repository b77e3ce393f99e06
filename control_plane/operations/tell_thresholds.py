"""Tells when use reaches a threshold of its limit, and when it is below it again: once each, in the transaction that
moves the allowance or changes its amount, so without delay.

Whoever moves an allowance holds its row until the transaction ends; so of two that cross together one sees what the
other has told. A plan change looks at the customer's own counters, and at those of subjects and tags that are beyond a
threshold; whose use reaches one only by a lower amount is told at its next use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from control_plane.core.credits import Pool
from control_plane.core.entitlements import Document
from control_plane.core.notices import Level, NoticeKind, Watch, crossed, level, watch
from control_plane.operations.resolve_entitlement import Standing, pools_of
from control_plane.store import allowances, leases, notices
from control_plane.store.allowances import Key
from control_plane.store.database import Connection
from control_plane.store.notices import Crossing, Notice
from protocol.entitlements import Limit, Scope
from protocol.instants import rfc3339
from protocol.windows import Calendar, WindowKind


def tell_moved(connection: Connection, standing: Standing, keys: Iterable[Key], now_ms: int) -> None:
    """These allowances, which are held, were moved, and that is written: tell what follows."""
    watches: dict[str, Watch] = {}
    for customer, authored in standing.authored.items():
        limits = standing.entitlements[customer].limits + standing.shadow.get(customer, ())
        if found := watch(limits, authored):
            watches[customer] = found
    if watches:
        notices.append(connection, _look(connection, watches, keys, now_ms), now_ms)


def look_at_changed(
    connection: Connection, customer: str, document: Document, calendar: Calendar, now_ms: int
) -> list[Notice]:
    """The customer's limits are others now: what is to be told, for :func:`control_plane.store.notices.append`."""
    found = watch(document.limits + document.shadow, document.authored)
    keys = set(notices.crossed_by(connection, customer, now_ms))
    for counter, one in found.items():
        if one.limit.scope is Scope.CUSTOMER:
            keys.add(Key(customer, counter, "", one.limit.window_at(now_ms, calendar).start_ms))
    for key in keys:
        if key.counter not in found:  # a limit that is gone is neither crossed nor recovered
            notices.recover(connection, key, notices.crossings_of(connection, [key]).get(key, ()))
    return _look(connection, {customer: found}, keys, now_ms)


def _look(connection: Connection, watches: Mapping[str, Watch], keys: Iterable[Key], now_ms: int) -> list[Notice]:
    watched = {key: one for key in keys if (one := watches.get(key.customer, {}).get(key.counter)) is not None}
    if not watched:
        return []
    lent = leases.used(connection, watched)
    filled = [key.customer for key, one in watched.items() if one.limit.window is WindowKind.GRANTS]
    pools = pools_of(connection, filled) if filled else {}
    known = notices.crossings_of(connection, watched)
    told: list[Notice] = []
    for row in allowances.find(connection, watched):
        open_ = lent[row.key].get("", leases.NOTHING_USED)
        used = row.posted + row.direct + open_.settled + open_.unreported
        limit, percents = watched[row.key]
        stands = level(limit, used, pools.get(row.key.customer, {}).get(limit.meter, Pool()), now_ms)
        before, now = known.get(row.key, set()), crossed(percents, stands)
        crossings = [Crossing(row.key, percent, row.window_end_ms) for percent in sorted(now - before)]
        notices.cross(connection, crossings, now_ms)
        if gone := before - now:
            notices.recover(connection, row.key, gone)
        told += [_notice(row, limit, percent, stands, crossed=True) for percent in sorted(now - before)]
        told += [_notice(row, limit, percent, stands, crossed=False) for percent in sorted(gone & set(percents))]
    return told


def _notice(row: allowances.Row, limit: Limit, percent: int, stands: Level, *, crossed: bool) -> Notice:
    if limit.window is WindowKind.GRANTS:
        left = None if stands.amount is None else max(0, stands.amount - stands.used)
        burned = {"limit": limit.key, "meter": limit.meter, "percent": percent, "granted": stands.amount, "left": left}
        return Notice(row.key.customer, NoticeKind.CREDITS_LOW if crossed else NoticeKind.CREDITS_RECOVERED, burned)
    kind = NoticeKind.THRESHOLD_CROSSED if crossed else NoticeKind.THRESHOLD_RECOVERED
    body = {
        "limit": limit.key,
        "meter": limit.meter,
        "window": limit.window.value,
        "scope": limit.scope.value,
        "scope_value": row.key.scope_value,
        "window_start": rfc3339(row.key.window_start_ms),
        "window_end": rfc3339(row.window_end_ms),
        "percent": percent,
        "amount": limit.amount,
        "used": stands.used,
    }
    return Notice(row.key.customer, kind, body)
