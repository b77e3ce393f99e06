"""Leases over HTTP: what is lent to which agent, and the open end of those whose holders are lost."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from control_plane.api.bodies import Reason
from control_plane.api.context import Context
from control_plane.api.parameters import (
    Page,
    PageCursor,
    PageLimit,
    PathKey,
    QueryKey,
    Serial,
    decode_cursor,
    key_cursor,
    page,
)
from control_plane.api.verbs import acts, reads
from control_plane.operations.author import Author
from control_plane.operations.change_customer import require_customer
from control_plane.operations.write_off_lease import write_off_lease
from control_plane.store import listings
from control_plane.store.database import Connection
from control_plane.store.listings import LeaseRow
from protocol.ids import Key
from protocol.instants import rfc3339
from protocol.units import Quantity
from protocol.violations import Violation

TAGS = ["agents"]
_POSITION: msgspec.json.Decoder[tuple[int, str, str]] = msgspec.json.Decoder(tuple[Serial, Key, Key])


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
    customer: str
    journal: str


class WriteOff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a lease is closed openly, and what to charge for it; without ``used`` what its holder had reported."""

    reason: Reason
    used: Quantity | None = None


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
        customer=row.customer,
        journal=row.journal,
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


@reads("/v1/leases", tags=TAGS)
def list_all_leases(
    context: NamedDependency[Context],
    status: StatusFilter = None,
    agent: QueryKey = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> Page[LeaseItem]:
    """Leases of all customers by status, agent or both; longest silence first."""
    if status is None and agent is None:
        raise Violation("status", "is missing", "a status, or an agent, or both")
    after = None if cursor is None else decode_cursor(cursor, _POSITION)
    rows = context.read(
        lambda connection: listings.leases_silent_since(
            connection, after, limit + 1, agent=agent, status=status.value if status else None
        )
    )
    return page(rows, limit, _item, lambda row: (row.renewed_at_ms, row.customer, row.lease))


@acts("/v1/customers/{customer:str}/leases/{lease:str}/write-off", WriteOff, tags=["customers"])
def write_off(
    customer: PathKey, lease: PathKey, data: JSONBody[WriteOff], context: NamedDependency[Context]
) -> LeaseItem:
    """Close a lease whose holder is silent (expired or in limbo), charged with what was used; the rest goes back.

    What its holder says later is the truth still: use beyond that is charged then.
    """

    def work(connection: Connection, author: Author) -> LeaseRow:
        write_off_lease(connection, customer, lease, data.used, data.reason, author)
        row = listings.find_lease(connection, customer, lease)
        assert row is not None
        return row

    return _item(context.change(work))


LEASE_HANDLERS = [list_leases, list_all_leases, write_off]
