"""Says how a customer's limits stand now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from control_plane.core.kinds import counted
from control_plane.core.overage import Overage, authored_key, overage, prices_of
from control_plane.core.plans import Price
from control_plane.operations.change_customer import require_customer
from control_plane.operations.foresee_exhaustion import Standing, foresee_exhaustion
from control_plane.operations.resolve_entitlement import standing_of
from control_plane.store import balances
from control_plane.store.balances import Counted
from control_plane.store.database import Connection
from protocol.entitlements import Limit, Scope
from protocol.windows import Window, WindowKind

_NOTHING = Counted("", 0, 0, 0, 0)


@dataclass(frozen=True)
class Balance:
    """One limit, for one scope value, in its present window; ``window`` is ``None`` for a limit that has none: on
    single calls, on what is held at the same time, and for rates.

    Attributes:
        exhausts_in_ms: when it will be reached at the present rate
            (:mod:`control_plane.operations.foresee_exhaustion`); ``None``: not within the window.
        price: of what passes the amount.
    """

    position: int
    limit: Limit
    window: Window | None
    counted: Counted
    exhausts_in_ms: int | None = None
    price: Price | None = None

    @property
    def overage(self) -> Overage:
        """What passes the amount, and what it costs."""
        return overage(self.limit, self.price, self.used)

    @property
    def remaining(self) -> int | None:
        """What is neither used nor in flight, never below 0; of a rate what no host holds; ``None`` when unlimited."""
        if self.limit.amount is None:
            return None
        if self.limit.smooth:
            return max(0, self.limit.amount - self.counted.lent)
        return max(0, self.limit.amount - self.used - self.counted.in_flight)

    @property
    def used(self) -> int:
        """Charged, with what open leases have settled."""
        return self.counted.charged + self.counted.settled


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
    windows = [None if limit.window is WindowKind.REQUEST else limit.window_at(now_ms, calendar) for limit in limits]
    places = [(limit.counter, window.start_ms) for limit, window in zip(limits, windows, strict=True) if window]
    whole = balances.of_customer(connection, customer, places)
    prices = prices_of(standing.authored[customer])
    found: list[Balance] = []
    for position, (limit, window) in enumerate(zip(limits, windows, strict=True)):
        missing = query.count - len(found)
        if missing <= 0:
            break
        if limit.scope is Scope.CUSTOMER:
            place = (limit.counter, window.start_ms if window else 0)
            rows = [] if _was_shown(query, position) else [whole.get(place, _NOTHING)]
        else:
            rows = list(_counted(connection, customer, position, limit, window, query, missing))
        shown = window if limit.is_counted else None
        price = prices.get(authored_key(limit))
        found.extend(Balance(position, limit, shown, row, price=price) for row in rows)
    standings = [Standing(one.limit, one.window, one.counted.scope_value, one.remaining) for one in found]
    foreseen = foresee_exhaustion(connection, customer, standings, now_ms)
    return [replace(one, exhausts_in_ms=in_ms) for one, in_ms in zip(found, foreseen, strict=True)]


def _was_shown(query: BalancesQuery, position: int) -> bool:
    return query.after is not None and position <= query.after[0]


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
    only = query.only.get(counted(limit.counter).dimension)
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
