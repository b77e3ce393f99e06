"""Declares features and meters, and publishes plans; the same said twice changes nothing."""

from __future__ import annotations

import msgspec

from control_plane.core import aggregates
from control_plane.core.catalog import BUILT_IN_METERS, compose_plan, decode_plan, encode_plan
from control_plane.core.feature_values import alike
from control_plane.core.plans import Bundle
from control_plane.operations.author import Author
from control_plane.operations.pin_price_books import pin_price_books
from control_plane.operations.refusals import Conflict
from control_plane.store import catalog, customers, meter_values
from control_plane.store.catalog import ADD_ONS, PLANS, FeatureRow, MeterRow, PlanRow, Shelf
from control_plane.store.database import Connection
from protocol.events import UnfinishedCalls
from protocol.violations import Violation


def put_feature(connection: Connection, wanted: FeatureRow, author: Author) -> FeatureRow:
    """Declare a feature, rename it, say how it combines, or switch it off for everybody.

    Customers whose entitlement this changes are told about a second later.

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
        catalog.change_feature(connection, wanted)
        if (known.combine, known.disabled) != (wanted.combine, wanted.disabled):
            customers.make_due(connection, of_all=True)
    body = wanted._asdict() | {"kind": wanted.kind.value}
    author.write_down(connection, "feature.put", wanted.feature, body)
    return wanted


def put_meter(connection: Connection, wanted: MeterRow, author: Author) -> MeterRow:
    """Declare a meter or describe it anew. One that is made of events is made of all that there are, from now on.

    Raises: Conflict: it is built in, or exists with another unit, in which usage has been counted, or is made
        otherwise. Violation: it cannot be made so.
    """
    if wanted.meter in BUILT_IN_METERS:
        raise Conflict("meter_built_in", f"Meter {wanted.meter!r} is built in and needs no declaration.", "meter")
    known = catalog.find_meter(connection, wanted.meter)
    if known == wanted:
        return wanted
    if known is None:
        _check_aggregate(connection, wanted)
        catalog.add_meter(connection, wanted)
        if wanted.aggregate:
            meter_values.begin_making(connection, wanted.meter)
    elif known.aggregate != wanted.aggregate:
        detail = f"Meter {known.meter!r} is made otherwise, and what it was made of stays. Declare another one."
        raise Conflict("meter_aggregation_fixed", detail, "aggregation")
    elif known.unit != wanted.unit:
        detail = f"Meter {known.meter!r} counts {known.unit!r}; a meter's unit never changes. Declare another one."
        raise Conflict("meter_unit_fixed", detail, "unit")
    else:
        catalog.change_meter(connection, wanted)
        if known.combine != wanted.combine:
            customers.make_due(connection, of_all=True)
    body = wanted._asdict()
    author.write_down(connection, "meter.put", wanted.meter, body)
    return wanted


def _check_aggregate(connection: Connection, wanted: MeterRow) -> None:
    made = catalog.aggregates(connection)
    if wanted.aggregate and len(made) >= aggregates.AGGREGATES_MAX:
        raise Violation(
            "aggregation", f"makes more than {len(made)} meters of events", f"at most {aggregates.AGGREGATES_MAX}"
        )
    reported = dict.fromkeys([*BUILT_IN_METERS, *catalog.meter_names(connection)], True)
    for violation in aggregates.violations(aggregates.decode(wanted.aggregate), reported | dict.fromkeys(made, False)):
        raise violation


def publish_plan(
    connection: Connection,
    plan: str,
    name: str,
    bundle: Bundle,
    author: Author,
    shelf: Shelf = PLANS,
) -> PlanRow:
    """Publish the next version of a plan (or add-on), unless the newest says the same. Who has one keeps its version.

    Raises: Violation: the plan breaks a rule of :func:`control_plane.core.catalog.compose_plan`. NotFound: it names a
        price book that there is not.
    """
    if shelf is ADD_ONS and bundle.unfinished_calls is not UnfinishedCalls.ESTIMATED:
        raise Violation("unfinished_calls", "is said by an add-on", "a plan that says it, for its add-ons too")
    pinned, book_rates = pin_price_books(connection, bundle.price_books)
    kinds = catalog.feature_kinds(connection)
    wanted = compose_plan(bundle, kinds, set(catalog.meter_names(connection)), pinned, book_rates)
    newest = catalog.find_plan(connection, plan, shelf=shelf)
    # Read before they are compared: what an older program wrote says the same in fewer fields.
    if newest is not None and newest.name == name and alike(decode_plan(newest.body), wanted):
        return newest
    body = encode_plan(wanted)
    published = PlanRow(plan, newest.version + 1 if newest else 1, name, body, author.now_ms)
    catalog.add_plan(connection, published, shelf)
    written: dict[str, object] = {"name": name, "version": published.version, "body": msgspec.json.decode(body)}
    author.write_down(connection, f"{shelf.key}.publish", plan, written)
    return published
