"""Overrides over HTTP: what one customer has otherwise than its plan says."""

from __future__ import annotations

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody

from control_plane.api.bodies import Reason
from control_plane.api.context import Context
from control_plane.api.instants import Instant, optional_ms
from control_plane.api.parameters import Page, PageCursor, PageLimit, PathKey, key_cursor, page
from control_plane.api.verbs import ends, puts, reads
from control_plane.core.overrides import OverrideBody, OverrideStatus
from control_plane.operations.change_customer import require_customer
from control_plane.operations.change_override import OverrideOrder, end_override, put_override, require_override
from control_plane.operations.resolve_entitlement import override_of
from control_plane.store import overrides
from control_plane.store.database import Connection
from control_plane.store.overrides import OverrideRow
from protocol.instants import rfc3339

LIST = "/v1/customers/{customer:str}/overrides"
PATH = LIST + "/{override:str}"
TAGS = ["subscriptions"]


class OverrideWrite(OverrideBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What shall be otherwise for one customer: a feature (``enabled``, ``value``) or a limit (``amount``,
    ``unlimited``, ``add``), why, and for how long. Of several on one limit the newest amount counts, and then all that
    is added; one that switches a feature off wins over all that switch it on."""

    reason: Reason
    starts_at: Instant | None = None
    until: Instant | None = None


class OverrideItem(msgspec.Struct, frozen=True):
    """An override; ``actor``: whose token made it."""

    override: str
    customer: str
    status: OverrideStatus
    body: OverrideBody
    reason: str
    actor: str
    made_at: str
    starts_at: str
    until: str | None


@puts(PATH, OverrideWrite, tags=TAGS)
def put(
    customer: PathKey, override: PathKey, data: JSONBody[OverrideWrite], context: NamedDependency[Context]
) -> OverrideItem:
    """Make an override. What one says never changes: end it, and make another."""
    body = OverrideBody(**{name: getattr(data, name) for name in OverrideBody.__struct_fields__})
    starts_ms, until_ms = optional_ms(data.starts_at, "starts_at"), optional_ms(data.until, "until")
    wanted = OverrideOrder(body, data.reason, starts_ms, until_ms)
    row = context.change(
        lambda connection, author: put_override(connection, customer, override, wanted, author),
        shown=lambda connection: _item(require_override(connection, customer, override), context.now_ms),
        of=customer,
    )
    return _item(row, context.now_ms)


@reads(PATH, tags=TAGS)
def get_override(customer: PathKey, override: PathKey, context: NamedDependency[Context]) -> OverrideItem:
    """One override."""
    row = context.read(lambda connection: require_override(connection, customer, override))
    return _item(row, context.now_ms)


@ends(PATH, tags=TAGS)
def end(customer: PathKey, override: PathKey, context: NamedDependency[Context]) -> OverrideItem:
    """End an override now; it stays on record."""
    row = context.change(
        lambda connection, author: end_override(connection, customer, override, author),
        shown=lambda connection: _item(require_override(connection, customer, override), context.now_ms),
        of=customer,
    )
    return _item(row, context.now_ms)


@reads(LIST, tags=TAGS)
def list_overrides(
    customer: PathKey, context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[OverrideItem]:
    """The customer's overrides in order of id, ended ones included."""
    after = key_cursor(cursor)

    def look(connection: Connection) -> list[OverrideRow]:
        require_customer(connection, customer)
        return overrides.after(connection, customer, after, limit + 1)

    return page(context.read(look), limit, lambda row: _item(row, context.now_ms), lambda row: row.override)


def _item(row: OverrideRow, now_ms: int) -> OverrideItem:
    one = override_of(row)
    return OverrideItem(
        override=row.override,
        customer=row.customer,
        status=one.status(now_ms),
        body=one.body,
        reason=row.reason,
        actor=row.actor,
        made_at=rfc3339(row.made_at_ms),
        starts_at=rfc3339(row.from_ms),
        until=None if row.until_ms is None else rfc3339(row.until_ms),
    )


OVERRIDE_HANDLERS = [put, get_override, end, list_overrides]
