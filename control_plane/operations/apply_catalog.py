"""Declares features and meters, and publishes plans; the same said twice changes nothing."""

from __future__ import annotations

import msgspec

from control_plane.core.catalog import BUILT_IN_METERS, PlanFeature, compose_plan, decode_plan, encode_plan
from control_plane.operations.author import Author
from control_plane.operations.refusals import Conflict
from control_plane.store import catalog
from control_plane.store.catalog import FeatureRow, MeterRow, PlanRow
from control_plane.store.database import Connection
from protocol.entitlements import Limit, Rate


def put_feature(connection: Connection, wanted: FeatureRow, author: Author) -> FeatureRow:
    """Declare a feature or rename it.

    Raises: Conflict: it exists with another kind, which published plans rely on.
    """
    known = catalog.find_feature(connection, wanted.feature)
    if known == wanted:
        return wanted
    if known is None:
        catalog.add_feature(connection, wanted)
    elif known.kind is not wanted.kind:
        detail = (
            f"Feature {known.feature!r} is {known.kind.value}; a feature's kind never changes. Declare another one."
        )
        raise Conflict("feature_kind_fixed", detail, "kind")
    else:
        catalog.rename_feature(connection, wanted.feature, wanted.name)
    body = {"name": wanted.name, "kind": wanted.kind.value}
    author.write_down(connection, "feature.put", wanted.feature, body)
    return wanted


def put_meter(connection: Connection, wanted: MeterRow, author: Author) -> MeterRow:
    """Declare a meter or describe it anew.

    Raises: Conflict: it is built in, or exists with another unit, in which usage has been counted.
    """
    if wanted.meter in BUILT_IN_METERS:
        raise Conflict("meter_built_in", f"Meter {wanted.meter!r} is built in and needs no declaration.", "meter")
    known = catalog.find_meter(connection, wanted.meter)
    if known == wanted:
        return wanted
    if known is None:
        catalog.add_meter(connection, wanted)
    elif known.unit != wanted.unit:
        detail = f"Meter {known.meter!r} counts {known.unit!r}; a meter's unit never changes. Declare another one."
        raise Conflict("meter_unit_fixed", detail, "unit")
    else:
        catalog.describe_meter(connection, wanted.meter, wanted.description)
    body = {"unit": wanted.unit, "description": wanted.description}
    author.write_down(connection, "meter.put", wanted.meter, body)
    return wanted


def publish_plan(
    connection: Connection,
    plan: str,
    name: str,
    features: tuple[PlanFeature, ...],
    limits: tuple[Limit, ...],
    author: Author,
    rates: tuple[Rate, ...] = (),
) -> PlanRow:
    """Publish a plan's next version, unless the newest says the same. Subscribers stay on the version they have.

    Raises: Violation: the plan breaks a rule of :func:`control_plane.core.catalog.compose_plan`.
    """
    kinds = catalog.feature_kinds(connection)
    wanted = compose_plan(features, limits, kinds, set(catalog.meter_names(connection)), rates)
    newest = catalog.find_plan(connection, plan)
    # Read before they are compared: what an older program wrote says the same in fewer fields.
    if newest is not None and (newest.name, decode_plan(newest.body)) == (name, wanted):
        return newest
    body = encode_plan(wanted)
    published = PlanRow(plan, newest.version + 1 if newest else 1, name, body, author.now_ms)
    catalog.add_plan(connection, published)
    written: dict[str, object] = {"name": name, "version": published.version, "body": msgspec.json.decode(body)}
    author.write_down(connection, "plan.publish", plan, written)
    return published
