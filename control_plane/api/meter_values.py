"""What meters that are made of events came to, over HTTP."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from control_plane.api.context import Context
from control_plane.api.parameters import (
    KeyPart,
    PageCursor,
    PageLimit,
    PathKey,
    QueryKey,
    QueryModel,
    QueryTag,
    decode_cursor,
    encode_cursor,
    named_subjects,
)
from control_plane.api.spans import From, Offset, SpanWindow, To, Zone, asked_span, zone_of
from control_plane.api.verbs import reads
from control_plane.core.aggregates import ATTRIBUTES, GROUPS_MAX, Aggregation, is_attribute
from control_plane.core.grains import Grain
from control_plane.operations.read_meter import MeterFound, MeterQuery, Position, read_meter
from protocol.instants import rfc3339
from protocol.violations import Violation

AttributeList = Annotated[
    str | None,
    QueryParameter(max_length=400, description="some of the meter's own `group_by`, as user,tag:project"),
]
HourGrain = Annotated[
    Literal["hour", "day", "week", "month"] | None, QueryParameter(description="a value for each of these")
]

_POSITION: msgspec.json.Decoder[Position] = msgspec.json.Decoder(
    Annotated[tuple[KeyPart, ...], msgspec.Meta(min_length=1, max_length=GROUPS_MAX + 1)]
)


class MeterValueItem(msgspec.Struct, frozen=True):
    """One value. ``start``: when its hour, day, week or month begins; null without a grain. ``group``: by attribute,
    ``""`` where a call did not say it."""

    value: int
    start: str | None
    group: dict[str, str]


class MeterValues(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """Values of ``from <= t < to``. ``whole``: false for a moment after something of the span was corrected, and while
    a meter that was declared late is still being made of older events. ``next_cursor`` is null on the last page."""

    meter: str
    aggregation: Aggregation
    from_: str
    to: str
    whole: bool
    items: list[MeterValueItem]
    next_cursor: str | None


@reads("/v1/customers/{customer:str}/meters/{meter:str}", tags=["customers"])
def get_meter_values(
    customer: PathKey,
    meter: PathKey,
    context: NamedDependency[Context],
    since: From = None,
    until: To = None,
    window: SpanWindow = None,
    offset: Offset = 0,
    grain: HourGrain = None,
    zone: Zone = None,
    group_by: AttributeList = None,
    feature: QueryKey = None,
    model: QueryModel = None,
    provider: QueryKey = None,
    user: QueryKey = None,
    workspace: QueryKey = None,
    role: QueryKey = None,
    api_key: QueryKey = None,
    tag: QueryTag = None,
    limit: PageLimit = 1000,
    cursor: PageCursor = None,
) -> MeterValues:
    """What a meter that is made of events came to for the customer: counts, sums of some calls, and greatest, latest
    and distinct values; by the hour of the events' own time. It is told apart by, and looked at for, what its own
    ``group_by`` names. Where nothing was counted there is no item."""
    only = named_subjects(user, workspace, role, api_key, tag)
    only |= {n: v for n, v in (("feature", feature), ("model", model), ("provider", provider)) if v is not None}
    names = _attributes(group_by)
    query = MeterQuery(
        span=asked_span(since, until, window, offset),
        grain=None if grain is None else Grain(grain),
        zone=zone_of(zone),
        group_by=names,
        only=only,
        after=None if cursor is None else _after(cursor, timed=grain is not None, names=names),
        count=limit,
    )
    found = context.read(lambda connection: read_meter(connection, customer, meter, query, context.now_ms))
    return _shown(meter, found, timed=grain is not None)


def _shown(meter: str, found: MeterFound, *, timed: bool) -> MeterValues:
    return MeterValues(
        meter=meter,
        aggregation=found.aggregate.aggregation,
        from_=rfc3339(found.from_ms),
        to=rfc3339(found.to_ms),
        whole=found.whole,
        items=[MeterValueItem(one.value, rfc3339(one.at_ms) if timed else None, one.group) for one in found.values],
        next_cursor=None if found.more_after is None else encode_cursor(found.more_after),
    )


def _attributes(text: str | None) -> tuple[str, ...]:
    names = () if text is None else tuple(text.split(","))
    expected = "attributes of the meter's own group_by, each once: " + ", ".join((*ATTRIBUTES, "tag:NAME"))
    for name in names:
        if not is_attribute(name):
            raise Violation("group_by", f"names {name!r}", expected)
    if len(set(names)) < len(names):
        raise Violation("group_by", "names an attribute twice", expected)
    return names


def _after(cursor: str, *, timed: bool, names: tuple[str, ...]) -> Position:
    """Where a page begins. Raises: Violation: the cursor is none of ours, or of another question."""
    after = decode_cursor(cursor, _POSITION)
    kinds = [int] * timed + [str] * len(names)
    if [type(part) for part in after] != kinds:
        raise Violation("cursor", "is of another question", "`next_cursor` of the page before, with its parameters")
    return after


METER_VALUE_HANDLERS = [get_meter_values]
