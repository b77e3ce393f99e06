"""Says how a customer's limits stand now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from control_plane.core.kinds import counted
from control_plane.operations.change_customer import require_customer
from control_plane.operations.resolve_entitlement import standing_of
from control_plane.store import balances
from control_plane.store.balances import Counted
from control_plane.store.database import Connection
from protocol.entitlements import Limit, Scope
from protocol.windows import Window, WindowKind


@dataclass(frozen=True)
class Balance:
    """One limit, for one scope value, in its present window; ``window`` is ``None`` for a limit that has none: on
    single calls, on what is held at the same time, and for rates."""

    position: int
    limit: Limit
    window: Window | None
    counted: Counted


@dataclass(frozen=True)
class BalancesQuery:
    """Which balances are wanted.

    Attributes:
        only: of limits that are kept by subject or tag, only those of these: values by dimension (``tag:NAME``).
        after: continue after this (position of the limit, scope value).
        count: at most so many.
    """

    only: Mapping[str, str]
    after: tuple[int, str] | None
    count: int


def read_balances(connection: Connection, customer: str, query: BalancesQuery, now_ms: int) -> list[Balance]:
    """How the limits of a customer stand, in the order of its plan. Raises: NotFound."""
    require_customer(connection, customer)
    standing = standing_of(connection, [customer], now_ms)
    limits = standing.entitlements[customer].limits + standing.shadow.get(customer, ())
    calendar = standing.calendars[customer]
    found: list[Balance] = []
    for position, limit in enumerate(limits):
        missing = query.count - len(found)
        if missing <= 0:
            break
        window = None if limit.window is WindowKind.REQUEST else limit.window_at(now_ms, calendar)
        rows = _counted(connection, customer, position, limit, window, query, missing)
        shown = window if limit.is_counted else None
        found.extend(Balance(position, limit, shown, row) for row in rows)
    return found


def _counted(
    connection: Connection,
    customer: str,
    position: int,
    limit: Limit,
    window: Window | None,
    query: BalancesQuery,
    count: int,
) -> Iterator[Counted]:
    after = None
    if query.after is not None:
        if position < query.after[0]:
            return
        after = query.after[1] if position == query.after[0] else None
    only = "" if limit.scope is Scope.CUSTOMER else query.only.get(counted(limit.counter).dimension)
    if only is not None and after is not None:
        return  # there is one, and it has been shown
    rows: list[Counted] = []
    if window is not None:
        rows = balances.counted(
            connection, customer, limit.counter, window.start_ms, scope_value=only, after=after, count=count
        )
    if not rows and only is not None:
        rows = [Counted(only, 0, 0, 0, 0)]
    yield from rows
