"""Leases over HTTP: what is lent to which agent."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from control_plane.api.context import Context
from control_plane.api.parameters import Page, PageCursor, PageLimit, PathKey, key_cursor, page
from control_plane.api.verbs import reads
from control_plane.operations.change_customer import require_customer
from control_plane.store import listings
from control_plane.store.database import Connection
from control_plane.store.listings import LeaseRow
from protocol.instants import rfc3339


class LeaseStatus(StrEnum):
    """Where a lease is in its life; all but closed ones are charged in full."""

    OPEN = "open"
    RECALLED = "recalled"
    EXPIRED = "expired"
    LIMBO = "limbo"
    CLOSED = "closed"


class LeaseItem(msgspec.Struct, frozen=True):
    """A slice of an allowance lent to one agent. ``cap``: granted less what was given back."""

    lease: str
    counter: str
    scope_value: str
    window_start: str
    agent: str
    status: LeaseStatus
    granted: int
    cap: int
    settled: int
    in_flight: int
    unreported: int
    overage: int
    central: bool
    granted_at: str
    renewed_at: str
    closed_at: str | None


StatusFilter = Annotated[LeaseStatus | None, QueryParameter(description="only leases of this status")]


def _item(row: LeaseRow) -> LeaseItem:
    return LeaseItem(
        lease=row.lease,
        counter=row.counter,
        scope_value=row.scope_value,
        window_start=rfc3339(row.window_start_ms),
        agent=row.agent,
        status=LeaseStatus(row.status),
        granted=row.granted,
        cap=row.cap,
        settled=row.settled,
        in_flight=row.in_flight,
        unreported=row.unreported,
        overage=row.overage,
        central=row.central,
        granted_at=rfc3339(row.granted_at_ms),
        renewed_at=rfc3339(row.renewed_at_ms),
        closed_at=None if row.closed_at_ms is None else rfc3339(row.closed_at_ms),
    )


@reads("/v1/customers/{customer:str}/leases", tags=["customers"])
def list_leases(
    customer: PathKey,
    context: NamedDependency[Context],
    status: StatusFilter = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> Page[LeaseItem]:
    """The customer's leases in order of id."""
    after = key_cursor(cursor)

    def look(connection: Connection) -> list[LeaseRow]:
        require_customer(connection, customer)
        return listings.leases_after(connection, customer, after, limit + 1, status.value if status else None)

    return page(context.read(look), limit, _item, lambda row: row.lease)


LEASE_HANDLERS = [list_leases]
