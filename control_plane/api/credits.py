"""Credits over HTTP: balances, grants, and the ledger of every movement."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody

from control_plane.api.bodies import Reason
from control_plane.api.context import Context
from control_plane.api.instants import Instant, optional_ms
from control_plane.api.parameters import Page, PageCursor, PageLimit, PathKey, key_cursor, page, serial_cursor
from control_plane.api.verbs import ends, puts, reads
from control_plane.core.credits import PRIORITY_MAX, Category, GrantStatus
from control_plane.operations.burn_credits import grant_of
from control_plane.operations.change_customer import require_customer
from control_plane.operations.grant_credits import GrantOrder, grant_credits, require_grant, void_grant
from control_plane.operations.read_credits import read_credits
from control_plane.store import credits
from control_plane.store.credits import GrantRow, Numbered
from control_plane.store.database import Connection
from protocol.ids import Key
from protocol.instants import rfc3339
from protocol.units import QUANTITY_MAX, Quantity
from protocol.windows import WindowKind

CUSTOMER = "/v1/customers/{customer:str}"
PATH = CUSTOMER + "/grants/{grant:str}"
TAGS = ["credits"]


class GrantWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Credit on a meter's balance.

    Attributes:
        priority: low burns first; then what ends soonest, then promotional, rolled over, included and purchased, then
            the cheapest, the oldest, and by id.
        every: it comes again in each such window, and ends with it: ``day``, ``week``, ``month``, ``billing_period``.
        rollover_min, rollover_max: ``min(max, max(left, min))`` goes on when it ends; ``rollover_days``: for how long;
            without it one more window.
        cost_micros, currency: what a million units cost, in millionths of the currency: the basis of its cost.
    """

    meter: Key
    amount: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)]
    reason: Reason
    priority: Annotated[int, msgspec.Meta(ge=0, le=PRIORITY_MAX)] = 0
    category: Category = Category.PURCHASED
    starts_at: Instant | None = None
    expires_at: Instant | None = None
    every: WindowKind | None = None
    rollover_min: Quantity = 0
    rollover_max: Quantity = 0
    rollover_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] | None = None
    cost_micros: Quantity = 0
    currency: Annotated[str, msgspec.Meta(pattern="^([A-Z]{3})?$")] = ""


class GrantItem(msgspec.Struct, frozen=True):
    """A grant: ``amount`` was given, of that ``burned`` is used up and ``forfeited`` was lost when it ended."""

    grant: str
    customer: str
    meter: str
    status: GrantStatus
    amount: int
    burned: int
    left: int
    forfeited: int
    priority: int
    category: Category
    starts_at: str
    expires_at: str | None
    every: str | None
    rollover_min: int
    rollover_max: int
    rollover_days: int | None
    cost_micros: int
    currency: str
    source: str
    reason: str
    actor: str
    made_at: str
    voided_at: str | None


class CreditItem(msgspec.Struct, frozen=True):
    """One balance: ``settled`` (the number to show people) is ``remaining`` (for new calls) and ``reserved`` (held by
    calls in flight). ``overdrawn``: used beyond every grant, paid by the next. ``grants``: in burn order."""

    meter: str
    remaining: int
    reserved: int
    settled: int
    overdrawn: int
    grants: tuple[GrantItem, ...]


class TransferItem(msgspec.Struct, frozen=True):
    """So much went from one account to another: ``issued``, ``grant:ID``, ``used``, ``expired``, ``voided``."""

    transfer: int
    meter: str
    from_account: str
    to_account: str
    amount: int
    cause: str
    event: str | None
    at: str


@puts(PATH, GrantWrite, tags=TAGS)
def put_grant(
    customer: PathKey, grant: PathKey, data: JSONBody[GrantWrite], context: NamedDependency[Context]
) -> GrantItem:
    """Grant credit; the same id grants once."""
    wanted = GrantOrder(
        meter=data.meter,
        amount=data.amount,
        reason=data.reason,
        priority=data.priority,
        category=data.category,
        from_ms=optional_ms(data.starts_at, "starts_at"),
        until_ms=optional_ms(data.expires_at, "expires_at"),
        every=data.every,
        rollover_min=data.rollover_min,
        rollover_max=data.rollover_max,
        rollover_days=data.rollover_days,
        cost_micros=data.cost_micros,
        currency=data.currency,
    )
    row = context.change(
        lambda connection, author: grant_credits(connection, customer, grant, wanted, author),
        shown=lambda connection: _item(require_grant(connection, customer, grant), context.now_ms),
        of=customer,
    )
    return _item(row, context.now_ms)


@reads(PATH, tags=TAGS)
def get_grant(customer: PathKey, grant: PathKey, context: NamedDependency[Context]) -> GrantItem:
    """One grant."""
    row = context.read(lambda connection: require_grant(connection, customer, grant))
    return _item(row, context.now_ms)


@ends(PATH, tags=TAGS)
def void(customer: PathKey, grant: PathKey, context: NamedDependency[Context]) -> GrantItem:
    """Void a grant now: what is left of it is gone; what was used of it stays used."""
    row = context.change(
        lambda connection, author: void_grant(connection, customer, grant, author),
        shown=lambda connection: _item(require_grant(connection, customer, grant), context.now_ms),
        of=customer,
    )
    return _item(row, context.now_ms)


@reads(CUSTOMER + "/grants", tags=TAGS)
def list_grants(
    customer: PathKey, context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[GrantItem]:
    """The customer's grants in order of id, ended ones included."""
    after = key_cursor(cursor)

    def look(connection: Connection) -> list[GrantRow]:
        require_customer(connection, customer)
        return credits.after(connection, customer, after, limit + 1)

    return page(context.read(look), limit, lambda row: _item(row, context.now_ms), lambda row: row.grant)


@reads(CUSTOMER + "/credits", tags=TAGS)
def list_credits(customer: PathKey, context: NamedDependency[Context]) -> list[CreditItem]:
    """How the customer's credits stand, by meter."""
    now_ms = context.now_ms
    return [
        CreditItem(
            meter=one.meter,
            remaining=one.remaining,
            reserved=one.reserved,
            settled=one.settled,
            overdrawn=one.overdrawn,
            grants=tuple(_item(row, now_ms) for row in one.grants),
        )
        for one in context.read(lambda connection: read_credits(connection, customer, now_ms))
    ]


@reads(CUSTOMER + "/credits/transfers", tags=TAGS)
def list_transfers(
    customer: PathKey, context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[TransferItem]:
    """Every movement of the customer's credits, in order: issued, burned by which use, expired, voided, rolled over."""
    after = serial_cursor(cursor) or 0

    def look(connection: Connection) -> list[Numbered]:
        require_customer(connection, customer)
        return credits.transfers(connection, customer, after, limit + 1)

    return page(context.read(look), limit, _transfer, lambda row: row.transfer)


def _transfer(row: Numbered) -> TransferItem:
    return TransferItem(
        row.transfer, row.meter, row.from_account, row.to_account, row.amount, row.cause, row.event, rfc3339(row.at_ms)
    )


def _item(row: GrantRow, now_ms: int) -> GrantItem:
    grant = grant_of(row)
    return GrantItem(
        grant=row.grant,
        customer=row.customer,
        meter=row.meter,
        status=grant.status(now_ms),
        amount=row.amount,
        burned=row.burned,
        left=grant.left,
        forfeited=row.forfeited,
        priority=row.priority,
        category=grant.category,
        starts_at=rfc3339(row.from_ms),
        expires_at=None if row.until_ms is None else rfc3339(row.until_ms),
        every=row.every or None,
        rollover_min=row.rollover_min,
        rollover_max=row.rollover_max,
        rollover_days=row.rollover_days,
        cost_micros=row.cost_micros,
        currency=row.currency,
        source=row.source,
        reason=row.reason,
        actor=row.actor,
        made_at=rfc3339(row.made_at_ms),
        voided_at=None if row.voided_at_ms is None else rfc3339(row.voided_at_ms),
    )


CREDIT_HANDLERS = [put_grant, get_grant, void, list_grants, list_credits, list_transfers]
