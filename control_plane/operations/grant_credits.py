"""Grants credit, and voids what was granted."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.core.credits import Category
from control_plane.operations.author import Author
from control_plane.operations.change_customer import require_customer
from control_plane.operations.keep_credits import issue
from control_plane.operations.refusals import Conflict, NotFound
from control_plane.operations.resolve_entitlement import calendar_of
from control_plane.store import catalog, credits
from control_plane.store.credits import GrantRow
from control_plane.store.database import Connection
from protocol.violations import Violation
from protocol.windows import WindowKind, window_at

RECURRING = (WindowKind.DAY, WindowKind.WEEK, WindowKind.MONTH, WindowKind.BILLING_PERIOD)


@dataclass(frozen=True)
class GrantOrder:
    """What is granted; ``from_ms`` of ``None``: from now on. See :class:`control_plane.core.credits.Grant`.

    Attributes:
        every: it comes again in each window of this kind, and ends with it; then it has no end of its own.
    """

    meter: str
    amount: int
    reason: str
    priority: int = 0
    category: Category = Category.PURCHASED
    from_ms: int | None = None
    until_ms: int | None = None
    every: WindowKind | None = None
    rollover_min: int = 0
    rollover_max: int = 0
    rollover_days: int | None = None
    cost_micros: int = 0
    currency: str = ""


def grant_credits(connection: Connection, customer: str, grant: str, wanted: GrantOrder, author: Author) -> GrantRow:
    """Grant credit on a meter's balance; the same id grants once.

    The customer can use it when its plan has a limit with ``window: grants`` on the meter.

    Raises: NotFound: no such customer or meter. Conflict: the id stands for another grant. Violation: it would end
        before it begins, or both ends and comes again.
    """
    require_customer(connection, customer, lock=True)
    if catalog.find_meter(connection, wanted.meter) is None:
        raise NotFound("meter_not_found", f"There is no meter {wanted.meter!r}.", "meter")
    from_ms = author.now_ms if wanted.from_ms is None else wanted.from_ms
    row = _row(customer, grant, wanted, from_ms, _until_ms(connection, customer, wanted, from_ms), author)
    known = credits.find(connection, customer, grant)
    if known is not None:
        if _said(known) == _said(row) and wanted.from_ms in (None, known.from_ms):
            return known
        detail = f"Grant {grant!r} is there and says something else. Void it, or choose another id."
        raise Conflict("grant_exists", detail, "grant")
    issue(connection, row, author.now_ms)
    said = {"meter": row.meter, "amount": row.amount, "reason": row.reason, "until_ms": row.until_ms}
    author.write_down(connection, "grant.put", grant, said, customer)
    author.change_entitlement(connection, customer, "grant.put")
    return require_grant(connection, customer, grant)


def void_grant(connection: Connection, customer: str, grant: str, author: Author) -> GrantRow:
    """End a grant now: what is left of it is gone, and it does not come again. What was used of it stays used, and
    what agents hold of it comes back within seconds; what they use of it until then is still taken from it.

    Raises: NotFound.
    """
    require_customer(connection, customer, lock=True)
    known = require_grant(connection, customer, grant)
    if known.closed or known.voided_at_ms is not None:
        return known
    until_ms = max(known.from_ms, author.now_ms)
    credits.change(connection, known._replace(until_ms=until_ms, voided_at_ms=author.now_ms))
    author.write_down(connection, "grant.void", grant, {}, customer)
    author.change_entitlement(connection, customer, "grant.void")
    return require_grant(connection, customer, grant)


def require_grant(connection: Connection, customer: str, grant: str) -> GrantRow:
    """One grant. Raises: NotFound."""
    require_customer(connection, customer)
    known = credits.find(connection, customer, grant)
    if known is None:
        raise NotFound("grant_not_found", f"Customer {customer!r} has no grant {grant!r}.", "grant")
    return known


def _until_ms(connection: Connection, customer: str, wanted: GrantOrder, from_ms: int) -> int | None:
    if wanted.every is None:
        if wanted.until_ms is not None and wanted.until_ms <= from_ms:
            raise Violation("expires_at", "is not after its beginning", "a later instant")
        if wanted.rollover_max and wanted.until_ms is None:
            raise Violation("rollover_max", f"is {wanted.rollover_max} for what never ends", "0, or an end")
        return wanted.until_ms
    if wanted.every not in RECURRING:
        raise Violation("every", f"is {wanted.every.value!r}", "one of " + ", ".join(RECURRING))
    if wanted.until_ms is not None:
        raise Violation("expires_at", "is given beside every", "one of the two: it ends with each window")
    return window_at(wanted.every, from_ms, calendar_of(connection, customer, from_ms)).end_ms


def _row(customer: str, grant: str, wanted: GrantOrder, from_ms: int, until_ms: int | None, author: Author) -> GrantRow:
    return GrantRow(
        customer=customer,
        grant=grant,
        meter=wanted.meter,
        amount=wanted.amount,
        burned=0,
        forfeited=0,
        from_ms=from_ms,
        until_ms=until_ms,
        priority=wanted.priority,
        category=wanted.category.value,
        cost_micros=wanted.cost_micros,
        currency=wanted.currency,
        every="" if wanted.every is None else wanted.every.value,
        rollover_min=wanted.rollover_min,
        rollover_max=wanted.rollover_max,
        rollover_days=wanted.rollover_days,
        source="",
        reason=wanted.reason,
        actor=author.token,
        made_at_ms=author.now_ms,
        voided_at_ms=None,
        closed=False,
    )


def _said(row: GrantRow) -> tuple[object, ...]:
    """What an order says of it, without what follows from when it was given."""
    ends = None if row.every or row.voided_at_ms else row.until_ms
    return (row.meter, row.amount, row.priority, row.category, row.cost_micros, row.currency, row.every, ends,
            row.rollover_min, row.rollover_max, row.rollover_days, row.reason)  # fmt: skip
