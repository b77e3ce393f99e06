"""Over HTTP: whether events, ledger, sums of usage and allowances agree."""

from __future__ import annotations

from itertools import islice

import msgspec
from litestar.di import NamedDependency

from control_plane.api.context import Context
from control_plane.api.parameters import PageCursor, QueryKey, encode_cursor, key_cursor
from control_plane.api.verbs import reads
from control_plane.operations.audit_books import Part
from control_plane.operations.change_customer import require_customer
from control_plane.operations.reconcile import reconcile
from protocol.violations import Violation


class DifferenceItem(msgspec.Struct, frozen=True):
    """Two things that should be equal, and are not; ``text`` says where, what, and both values."""

    part: Part
    customer: str
    text: str


class Reconciliation(msgspec.Struct, frozen=True):
    """What was found of some customers: of how many, and how they differ. ``next_cursor`` is null at the end."""

    customers: int
    agree: bool
    items: list[DifferenceItem]
    next_cursor: str | None


@reads("/v1/reconciliation", tags=["audit"])
def get_reconciliation(
    context: NamedDependency[Context], customer: QueryKey = None, cursor: PageCursor = None
) -> Reconciliation:
    """Recompute every sum of one customer, or of the next few, from what it was made of, and name each difference.
    Reads all of their events: `allotment-control-plane reconcile` does it for everybody."""
    after = key_cursor(cursor)
    if customer is not None:
        if cursor is not None:
            raise Violation("cursor", "is given beside `customer`", "one of the two")
        context.read(lambda connection: require_customer(connection, customer))
    (found,) = islice(reconcile(context.database, after, only=customer), 1)
    items = [DifferenceItem(*one) for one in found.differences]
    return Reconciliation(found.customers, not items, items, None if found.upto is None else encode_cursor(found.upto))


RECONCILIATION_HANDLERS = [get_reconciliation]
