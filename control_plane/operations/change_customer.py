"""Adds, renames, archives and brings back customers."""

from __future__ import annotations

from control_plane.operations.author import Author
from control_plane.operations.refusals import NotFound
from control_plane.store import customers
from control_plane.store.customers import Customer
from control_plane.store.database import Connection


def put_customer(connection: Connection, customer: str, name: str, author: Author) -> Customer:
    """Add a customer, rename it, or bring an archived one back; the same said twice changes nothing."""
    known = customers.find(connection, customer, lock=True)
    if known is not None and known.archived_at_ms is None and known.name == name:
        return known
    if known is None:
        customers.add(connection, customer, name, author.now_ms)
    else:
        customers.rename(connection, customer, name)
        customers.set_archived(connection, customer, None)
    author.write_down(connection, "customer.put", customer, {"name": name}, customer)
    if known is None or known.archived_at_ms is not None:
        author.change_entitlement(connection, customer, "customer.put")  # agents may have asked before it was known
    return require_customer(connection, customer)


def archive_customer(connection: Connection, customer: str, author: Author) -> Customer:
    """Refuse every further call of a customer; what it used stays. Raises: NotFound."""
    known = require_customer(connection, customer, lock=True)
    if known.archived_at_ms is not None:
        return known
    customers.set_archived(connection, customer, author.now_ms)
    author.write_down(connection, "customer.archive", customer, {}, customer)
    author.change_entitlement(connection, customer, "customer.archive")
    return require_customer(connection, customer)


def require_customer(connection: Connection, customer: str, *, lock: bool = False) -> Customer:
    """The customer. Raises: NotFound: nobody knows it."""
    known = customers.find(connection, customer, lock=lock)
    if known is None:
        raise NotFound("customer_not_found", f"There is no customer {customer!r}.", "customer")
    return known
