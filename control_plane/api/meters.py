"""Meters over HTTP: the declared ones, and the built-in ones beside them."""

from __future__ import annotations

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody

from control_plane.api.context import Context
from control_plane.api.parameters import Page, PageCursor, PageLimit, PathKey, key_cursor, page
from control_plane.api.verbs import puts, reads
from control_plane.core.aggregates import REPORTED, Aggregate, Aggregation, decode, encode
from control_plane.core.catalog import BUILT_IN_METERS
from control_plane.core.catalog_file import MeterWrite
from control_plane.core.combining import Combine
from control_plane.operations.apply_catalog import put_meter
from control_plane.operations.refusals import NotFound
from control_plane.store import catalog
from control_plane.store.catalog import MeterRow

TAGS = ["catalog"]


class MeterItem(msgspec.Struct, frozen=True):
    """A meter; built-in ones need no declaration. Those that are ``reported``, or made by rates, can have limits; the
    others are made of events as ``aggregation`` and so on say."""

    meter: str
    unit: str
    description: str
    combine: Combine
    built_in: bool
    reported: bool = True
    aggregation: Aggregation = Aggregation.SUM
    of: str | None = None
    filter: dict[str, tuple[str, ...]] = {}
    group_by: tuple[str, ...] = ()


_BUILT_IN = {meter: MeterItem(meter, unit, "", Combine.SUM, built_in=True) for meter, unit in BUILT_IN_METERS.items()}


def _item(row: MeterRow) -> MeterItem:
    made = decode(row.aggregate)
    how = {name: getattr(made, name) for name in Aggregate.__struct_fields__}
    return MeterItem(
        row.meter, row.unit, row.description, Combine(row.combine), built_in=False, reported=made == REPORTED, **how
    )


@puts("/v1/meters/{meter:str}", MeterWrite, tags=TAGS)
def declare_meter(meter: PathKey, data: JSONBody[MeterWrite], context: NamedDependency[Context]) -> MeterItem:
    """Declare a meter, or describe it anew. With an ``aggregation`` other than a plain sum it is not reported, but made
    of events: of all that there are, and of each that comes."""
    wanted = MeterRow(meter, data.unit, data.description, data.combine.value, encode(data.aggregate))
    return _item(context.change(lambda connection, author: put_meter(connection, wanted, author)))


@reads("/v1/meters/{meter:str}", tags=TAGS)
def get_meter(meter: PathKey, context: NamedDependency[Context]) -> MeterItem:
    """One meter."""
    if meter in _BUILT_IN:
        return _BUILT_IN[meter]
    row = context.read(lambda connection: catalog.find_meter(connection, meter))
    if row is None:
        raise NotFound("meter_not_found", f"There is no meter {meter!r}.", "meter")
    return _item(row)


@reads("/v1/meters", tags=TAGS)
def list_meters(
    context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[MeterItem]:
    """Meters in order of name, built-in ones among them."""
    after = key_cursor(cursor)
    declared = context.read(lambda connection: catalog.meters_after(connection, after, limit + 1))
    items = [_item(row) for row in declared] + [item for item in _BUILT_IN.values() if item.meter > after]
    items.sort(key=lambda item: item.meter)
    return page(items[: limit + 1], limit, lambda item: item, lambda item: item.meter)


METER_HANDLERS = [declare_meter, get_meter, list_meters]
