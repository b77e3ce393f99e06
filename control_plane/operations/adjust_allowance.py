"""Charges an allowance by hand, or gives back: when people know of use, or of none, that no agent will ever report."""

from __future__ import annotations

from control_plane.operations.author import Author
from control_plane.operations.change_customer import require_customer
from control_plane.operations.keep_books import Books
from control_plane.operations.refusals import NotFound
from control_plane.operations.resolve_entitlement import calendar_of, entitlement_of, standing_of
from control_plane.operations.tell_thresholds import tell_moved
from control_plane.store import ledger
from control_plane.store.allowances import Key
from control_plane.store.database import Connection
from protocol.entitlements import Limit
from protocol.violations import Violation

CAUSE = "adjustment"


def adjust_allowance(
    connection: Connection,
    customer: str,
    adjustment: str,
    limit: str,
    scope_value: str,
    amount: int,
    reason: str,
    author: Author,
) -> bool:
    """Add ``amount`` (negative: give back) to what is used of a limit in its present window; the same id adds once.

    Returns: whether it was added now.

    Raises: NotFound: no such customer, or its plan has no such limit. Violation: the limit sums nothing up.
    """
    require_customer(connection, customer, lock=True)
    if ledger.has(connection, customer, CAUSE, adjustment):
        return False
    counted = _limit(connection, customer, limit, author.now_ms)
    window = counted.window_at(author.now_ms, calendar_of(connection, customer, author.now_ms))
    key = Key(customer, counted.counter, scope_value, window.start_ms)
    books = Books(connection, author.now_ms)
    books.open({key: window.end_ms})
    books.debit(key, amount, CAUSE, event=adjustment)
    books.save()
    body = {"adjustment": adjustment, "limit": limit, "scope_value": scope_value, "amount": amount, "reason": reason}
    author.write_down(connection, "allowance.adjust", adjustment, body, customer)
    tell_moved(connection, standing_of(connection, [customer], author.now_ms), books.accounts, author.now_ms)
    books.publish()
    return True


def _limit(connection: Connection, customer: str, name: str, now_ms: int) -> Limit:
    entitlement = entitlement_of(connection, customer, now_ms)
    for limit in entitlement.limits if entitlement else ():
        if limit.key == name:
            if not limit.is_counted:
                raise Violation("limit", f"{name!r} sums nothing up", "a limit that counts in windows")
            return limit
    raise NotFound("limit_not_found", f"Customer {customer!r} has no limit {name!r}.", "limit")
