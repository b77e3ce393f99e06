"""Plans over HTTP: publishing makes a new version, and never changes an old one."""

from __future__ import annotations

from typing import Annotated, Any

from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from control_plane.api.context import Context
from control_plane.api.parameters import Page, PageCursor, PageLimit, PathKey, key_cursor, page
from control_plane.api.verbs import puts, reads
from control_plane.core.catalog import authored, decode_plan
from control_plane.core.catalog_file import PlanWrite
from control_plane.core.plans import Bundle
from control_plane.operations.apply_catalog import publish_plan
from control_plane.operations.refusals import NotFound
from control_plane.store import catalog
from control_plane.store.catalog import ADD_ONS, PLANS, PlanRow, Shelf
from control_plane.store.database import Connection
from protocol.instants import rfc3339

TAGS = ["catalog"]
VERSION_MAX = 2**31 - 1
Version = Annotated[int | None, QueryParameter(ge=1, le=VERSION_MAX, description="without it the newest")]


class PlanItem(Bundle, frozen=True, kw_only=True):
    """One published version of a plan, written as it is sent; price books with their versions."""

    plan: str
    version: int
    name: str
    published_at: str


class AddOnItem(Bundle, frozen=True, kw_only=True):
    """One published version of an add-on: a bundle that stacks on a plan."""

    add_on: str
    version: int
    name: str
    published_at: str


def _item(row: PlanRow) -> PlanItem:
    return PlanItem(plan=row.plan, **_rest(row))


def _add_on(row: PlanRow) -> AddOnItem:
    return AddOnItem(add_on=row.plan, **_rest(row))


def _rest(row: PlanRow) -> dict[str, Any]:
    bundle = authored(decode_plan(row.body))
    rest = {name: getattr(bundle, name) for name in Bundle.__struct_fields__}
    return rest | {"version": row.version, "name": row.name, "published_at": rfc3339(row.published_at_ms)}


@puts("/v1/plans/{plan:str}", PlanWrite, tags=TAGS)
def publish(plan: PathKey, data: JSONBody[PlanWrite], context: NamedDependency[Context]) -> PlanItem:
    """Publish the plan's next version, unless the newest says the same. Subscribers stay on the version they have."""
    row = context.change(
        lambda connection, author: publish_plan(connection, plan, data.name, data.bundle, author),
        shown=lambda connection: _item(_require(connection, plan)),
    )
    return _item(row)


@reads("/v1/plans/{plan:str}", tags=TAGS)
def get_plan(plan: PathKey, context: NamedDependency[Context], version: Version = None) -> PlanItem:
    """One version of a plan."""
    return _item(context.read(lambda connection: _require(connection, plan, version)))


@reads("/v1/plans", tags=TAGS)
def list_plans(context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None) -> Page[PlanItem]:
    """The newest version of each plan, in order of name."""
    after = key_cursor(cursor)
    rows = context.read(lambda connection: catalog.newest_plans_after(connection, after, limit + 1))
    return page(rows, limit, _item, lambda row: row.plan)


@puts("/v1/add-ons/{add_on:str}", PlanWrite, tags=TAGS)
def publish_add_on(add_on: PathKey, data: JSONBody[PlanWrite], context: NamedDependency[Context]) -> AddOnItem:
    """Publish the add-on's next version, unless the newest says the same. Who has it stays on the version they have."""
    row = context.change(
        lambda connection, author: publish_plan(connection, add_on, data.name, data.bundle, author, ADD_ONS),
        shown=lambda connection: _add_on(_require(connection, add_on, shelf=ADD_ONS)),
    )
    return _add_on(row)


@reads("/v1/add-ons/{add_on:str}", tags=TAGS)
def get_add_on(add_on: PathKey, context: NamedDependency[Context], version: Version = None) -> AddOnItem:
    """One version of an add-on."""
    return _add_on(context.read(lambda connection: _require(connection, add_on, version, ADD_ONS)))


@reads("/v1/add-ons", tags=TAGS)
def list_add_ons(
    context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[AddOnItem]:
    """The newest version of each add-on, in order of name."""
    after = key_cursor(cursor)
    rows = context.read(lambda connection: catalog.newest_plans_after(connection, after, limit + 1, ADD_ONS))
    return page(rows, limit, _add_on, lambda row: row.plan)


def _require(connection: Connection, key: str, version: int | None = None, shelf: Shelf = PLANS) -> PlanRow:
    row = catalog.find_plan(connection, key, version, shelf)
    if row is None:
        kind = shelf.key.replace("_", "-")
        which = f"{kind} {key!r}" if version is None else f"version {version} of {kind} {key!r}"
        raise NotFound(f"{shelf.key}_not_found", f"There is no {which}.", shelf.key)
    return row


PLAN_HANDLERS = [publish, get_plan, list_plans, publish_add_on, get_add_on, list_add_ons]
