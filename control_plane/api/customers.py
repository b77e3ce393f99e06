"""Customers over HTTP, and the entitlement of each."""

from __future__ import annotations

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody

from control_plane.api.bodies import DisplayName
from control_plane.api.context import Context
from control_plane.api.parameters import Page, PageCursor, PageLimit, PathKey, key_cursor, page
from control_plane.api.verbs import ends, puts, reads
from control_plane.operations.change_customer import archive_customer, put_customer, require_customer
from control_plane.operations.resolve_entitlement import entitlement_of
from control_plane.store import customers
from control_plane.store.customers import Customer
from control_plane.store.database import Connection
from protocol.entitlements import Entitlement
from protocol.instants import rfc3339

TAGS = ["customers"]


class CustomerWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a customer is called."""

    name: DisplayName


class CustomerItem(msgspec.Struct, frozen=True):
    """A customer. ``version`` is that of its entitlement: it grows with every change that can alter it."""

    customer: str
    name: str
    version: int
    created_at: str
    archived_at: str | None


def _item(row: Customer) -> CustomerItem:
    archived_at = None if row.archived_at_ms is None else rfc3339(row.archived_at_ms)
    return CustomerItem(row.customer, row.name, row.version, rfc3339(row.created_at_ms), archived_at)


@puts("/v1/customers/{customer:str}", CustomerWrite, tags=TAGS)
def put(customer: PathKey, data: JSONBody[CustomerWrite], context: NamedDependency[Context]) -> CustomerItem:
    """Add a customer, rename it, or bring an archived one back."""
    row = context.change(
        lambda connection, author: put_customer(connection, customer, data.name, author),
        shown=lambda connection: _item(require_customer(connection, customer)),
        of=customer,
    )
    return _item(row)


@reads("/v1/customers/{customer:str}", tags=TAGS)
def get_customer(customer: PathKey, context: NamedDependency[Context]) -> CustomerItem:
    """One customer."""
    return _item(context.read(lambda connection: require_customer(connection, customer)))


@ends("/v1/customers/{customer:str}", tags=TAGS)
def archive(customer: PathKey, context: NamedDependency[Context]) -> CustomerItem:
    """Archive a customer: every further call is refused; what it used stays."""
    row = context.change(
        lambda connection, author: archive_customer(connection, customer, author),
        shown=lambda connection: _item(require_customer(connection, customer)),
        of=customer,
    )
    return _item(row)


@reads("/v1/customers", tags=TAGS)
def list_customers(
    context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[CustomerItem]:
    """Customers in order of id, archived ones included."""
    after = key_cursor(cursor)
    rows = context.read(lambda connection: customers.after(connection, after, limit + 1))
    return page(rows, limit, _item, lambda row: row.customer)


@reads("/v1/customers/{customer:str}/entitlement", tags=TAGS)
def get_entitlement(customer: PathKey, context: NamedDependency[Context]) -> Entitlement:
    """What the customer may use now: the document that agents decide by."""

    def look(connection: Connection) -> Entitlement:
        require_customer(connection, customer)
        entitlement = entitlement_of(connection, customer, context.now_ms)
        assert entitlement is not None
        return entitlement

    return context.read(look)


CUSTOMER_HANDLERS = [put, get_customer, archive, list_customers, get_entitlement]
