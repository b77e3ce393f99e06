"""Closes billing periods: a statement that never changes; what is told of them later counts in the next one."""

from __future__ import annotations

import msgspec

from control_plane.core.notices import NoticeKind
from control_plane.core.statements import Statement
from control_plane.operations.author import Author
from control_plane.operations.change_customer import require_customer
from control_plane.operations.make_statement import make_statement
from control_plane.operations.refusals import Conflict
from control_plane.operations.resolve_entitlement import calendar_of
from control_plane.store import notices, periods
from control_plane.store.database import Connection
from control_plane.store.notices import Notice
from control_plane.store.periods import PeriodRow
from protocol.instants import rfc3339
from protocol.violations import Violation
from protocol.windows import Window, WindowKind, window_at


def close_period(connection: Connection, customer: str, start_ms: int, author: Author, note: str = "") -> PeriodRow:
    """Close the period that begins at ``start_ms``; closed again, it stays as it is. The first may be any that is over:
    what was before it is closed with it; from then on they are closed one after the other.

    Raises: NotFound: no such customer. Violation: no period begins then. Conflict: it is not over, another one comes
        first, or agents still hold leases of its windows (which end ten minutes after the window at the latest).
    """
    require_customer(connection, customer, lock=True)
    known = periods.find(connection, customer, start_ms)
    if known is not None:
        return known
    period = period_from(connection, customer, start_ms, author.now_ms)
    first_ms = periods.closed_until(connection, customer)
    if first_ms and start_ms != first_ms:
        detail = f"The next period to be closed begins at {rfc3339(first_ms)}."
        raise Conflict("period_out_of_order", detail, "start")
    if author.now_ms < period.end_ms:
        raise Conflict("period_not_over", f"It ends at {rfc3339(period.end_ms)}.", "start")
    held = periods.open_leases(connection, customer, period)
    if held:
        detail = f"Agents still hold {held} leases of its windows; ask again ten minutes after its end."
        raise Conflict("period_has_leases", detail, "start")
    statement = make_statement(connection, customer, period, author.now_ms)
    text = msgspec.json.encode(statement).decode()
    row = PeriodRow(customer, start_ms, period.end_ms, author.now_ms, author.token, text)
    periods.close(connection, row)
    totals = msgspec.to_builtins(statement.overage_total)
    span = {"start": statement.start, "end": statement.end, "overage_total": totals}
    author.write_down(connection, "billing_period.close", statement.start, {**span, "note": note}, customer)
    notices.append(connection, [Notice(customer, NoticeKind.PERIOD_CLOSED.value, span)], author.now_ms)
    return row


def read_statement(
    connection: Connection, customer: str, start_ms: int, now_ms: int
) -> tuple[Statement, PeriodRow | None]:
    """The statement of a period: of a closed one as it was then, of another as it is now.

    Raises: NotFound: no such customer. Violation: no period begins then.
    """
    require_customer(connection, customer)
    row = periods.find(connection, customer, start_ms)
    if row is not None:
        return msgspec.json.decode(row.statement, type=Statement), row
    period = period_from(connection, customer, start_ms, now_ms)
    return make_statement(connection, customer, period, now_ms), None


def present_start(connection: Connection, customer: str, now_ms: int) -> int:
    """Where the billing period that now lies in begins. Raises: NotFound: no such customer."""
    require_customer(connection, customer)
    window = window_at(WindowKind.BILLING_PERIOD, now_ms, calendar_of(connection, customer, now_ms))
    return max(window.start_ms, periods.closed_until(connection, customer))


def last_start(connection: Connection, customer: str, now_ms: int) -> int:
    """Where the one before that begins. Raises: NotFound: no such customer."""
    present_ms = present_start(connection, customer, now_ms)
    newest = periods.newest(connection, customer)
    if newest is not None and newest.end_ms == present_ms:
        return newest.start_ms
    calendar = calendar_of(connection, customer, now_ms)
    before = window_at(WindowKind.BILLING_PERIOD, present_ms - 1, calendar)
    return max(before.start_ms, 0 if newest is None else newest.end_ms)


def period_from(connection: Connection, customer: str, start_ms: int, now_ms: int) -> Window:
    """The billing period that begins then. Where periods have become others since the last one was closed, the first of
    the new ones begins where that ended. Raises: Violation: none begins then."""
    window = window_at(WindowKind.BILLING_PERIOD, start_ms, calendar_of(connection, customer, now_ms))
    if start_ms > now_ms:
        raise Violation("start", "is an instant to come", "the beginning of a period that has begun")
    if start_ms not in {window.start_ms, periods.closed_until(connection, customer)}:
        raise Violation("start", "is not where a billing period begins", rfc3339(window.start_ms))
    return Window(start_ms, window.end_ms)
