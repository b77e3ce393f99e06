"""Plans over HTTP: publishing makes a new version, and never changes an old one."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from control_plane.api.bodies import DisplayName
from control_plane.api.context import Context
from control_plane.api.parameters import Page, PageCursor, PageLimit, PathKey, key_cursor, page
from control_plane.api.verbs import puts, reads
from control_plane.core.catalog import PlanFeature, decode_plan
from control_plane.operations.apply_catalog import publish_plan
from control_plane.operations.refusals import NotFound
from control_plane.store import catalog
from control_plane.store.catalog import PlanRow
from protocol.entitlements import FEATURES_MAX, LIMITS_MAX, RATES_MAX, Limit, Rate
from protocol.instants import rfc3339

TAGS = ["catalog"]
VERSION_MAX = 2**31 - 1
Version = Annotated[int | None, QueryParameter(ge=1, le=VERSION_MAX, description="without it the newest")]


class PlanWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a plan shall be: the features it includes, the limits it sets, and the rates at which calls turn into meters
    of their own (a limit on such a meter is a credit pool)."""

    name: DisplayName
    features: Annotated[tuple[PlanFeature, ...], msgspec.Meta(max_length=FEATURES_MAX)] = ()
    limits: Annotated[tuple[Limit, ...], msgspec.Meta(max_length=LIMITS_MAX)] = ()
    rates: Annotated[tuple[Rate, ...], msgspec.Meta(max_length=RATES_MAX)] = ()


class PlanItem(msgspec.Struct, frozen=True):
    """One published version of a plan; features, limits and rates are written as they are sent."""

    plan: str
    version: int
    name: str
    published_at: str
    features: tuple[PlanFeature, ...]
    limits: tuple[Limit, ...]
    rates: tuple[Rate, ...]


def _item(row: PlanRow) -> PlanItem:
    body = decode_plan(row.body)
    features = tuple(PlanFeature(feature.key, feature.enabled, feature.value) for feature in body.features)
    return PlanItem(row.plan, row.version, row.name, rfc3339(row.published_at_ms), features, body.limits, body.rates)


@puts("/v1/plans/{plan:str}", PlanWrite, tags=TAGS)
def publish(plan: PathKey, data: JSONBody[PlanWrite], context: NamedDependency[Context]) -> PlanItem:
    """Publish the plan's next version, unless the newest says the same. Subscribers stay on the version they have."""
    row = context.change(
        lambda connection, author: publish_plan(
            connection, plan, data.name, data.features, data.limits, author, data.rates
        )
    )
    return _item(row)


@reads("/v1/plans/{plan:str}", tags=TAGS)
def get_plan(plan: PathKey, context: NamedDependency[Context], version: Version = None) -> PlanItem:
    """One version of a plan."""
    row = context.read(lambda connection: catalog.find_plan(connection, plan, version))
    if row is None:
        which = f"plan {plan!r}" if version is None else f"version {version} of plan {plan!r}"
        raise NotFound("plan_not_found", f"There is no {which}.", "plan")
    return _item(row)


@reads("/v1/plans", tags=TAGS)
def list_plans(context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None) -> Page[PlanItem]:
    """The newest version of each plan, in order of name."""
    after = key_cursor(cursor)
    rows = context.read(lambda connection: catalog.newest_plans_after(connection, after, limit + 1))
    return page(rows, limit, _item, lambda row: row.plan)


PLAN_HANDLERS = [publish, get_plan, list_plans]
