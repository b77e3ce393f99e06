"""Usage over HTTP: sums of what a customer used, or every customer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

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
from control_plane.core.grains import AskedSpan
from control_plane.operations.read_usage import (
    TAG,
    TIMES,
    WHOLE,
    Position,
    UsageFound,
    UsageQuery,
    is_dimension,
    parse_keys,
    read_fleet_usage,
    read_usage,
)
from protocol.instants import rfc3339
from protocol.violations import Violation

TAGS = ["customers"]

GroupBy = Annotated[
    str,
    QueryParameter(
        max_length=200,
        description="of meter, feature, model, minute, hour, day, week, month, and one of user, workspace, role, "
        "api_key, tag:NAME",
    ),
]
FleetGroupBy = Annotated[
    str,
    QueryParameter(max_length=200, description="of meter, feature, model, hour, day, week, month; `customer` leads"),
]
TimeGrain = Annotated[
    Literal["minute", "hour", "day", "week", "month"] | None,
    QueryParameter(description="a series in time: the same as this key at the head of `group_by`"),
]
FleetGrain = Annotated[Literal["hour", "day", "week", "month"] | None, QueryParameter(description="as in `group_by`")]

_POSITION: msgspec.json.Decoder[Position] = msgspec.json.Decoder(
    Annotated[tuple[KeyPart, ...], msgspec.Meta(min_length=1, max_length=16)]
)


class UsageItem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One group; it carries the keys that were asked for. ``tag``: the value of the tag that was. Of a minute, hour,
    day, week or month the instant at which it begins."""

    quantity: int
    events: int
    customer: str | None = None
    meter: str | None = None
    feature: str | None = None
    model: str | None = None
    user: str | None = None
    workspace: str | None = None
    role: str | None = None
    api_key: str | None = None
    tag: str | None = None
    minute: str | None = None
    hour: str | None = None
    day: str | None = None
    week: str | None = None
    month: str | None = None


class Usage(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """Sums of ``from <= t < to``. A group without ``meter`` adds up quantities of different units. ``next_cursor`` is
    null on the last page."""

    from_: str
    to: str
    items: list[UsageItem]
    next_cursor: str | None


@dataclass(frozen=True)
class _Asked:
    """The parameters that both routes have."""

    span: AskedSpan
    zone: str | None
    meter: str | None
    feature: str | None
    model: str | None
    limit: int
    cursor: str | None

    def query(self, keys: tuple[str, ...], **more: Any) -> UsageQuery:
        """As the operation understands them. Raises: Violation."""
        only = {"meter": self.meter, "feature": self.feature, "model": self.model}
        return UsageQuery(
            span=self.span,
            keys=keys,
            zone=zone_of(self.zone),
            only={name: value for name, value in only.items() if value is not None},
            after=None if self.cursor is None else _after(self.cursor, keys),
            count=self.limit,
            **more,
        )


@reads("/v1/customers/{customer:str}/usage", tags=TAGS)
def get_usage(
    customer: PathKey,
    context: NamedDependency[Context],
    since: From = None,
    until: To = None,
    window: SpanWindow = None,
    offset: Offset = 0,
    grain: TimeGrain = None,
    zone: Zone = None,
    group_by: GroupBy = "meter",
    meter: QueryKey = None,
    feature: QueryKey = None,
    model: QueryModel = None,
    user: QueryKey = None,
    workspace: QueryKey = None,
    role: QueryKey = None,
    api_key: QueryKey = None,
    tag: QueryTag = None,
    limit: PageLimit = 1000,
    cursor: PageCursor = None,
) -> Usage:
    """What the customer used, told apart by ``grain`` and the keys of ``group_by``, at the events' own time. With a
    subject or a tag (``NAME:VALUE``), only what names it: of these, sums are kept by the hour, and the span is rounded
    out to whole hours; else to whole minutes. A page goes on where the one before ended, with the same parameters."""
    keys = _with_grain(grain, parse_keys(group_by))
    dimension, value = _dimension(keys, named_subjects(user, workspace, role, api_key, tag))
    span = asked_span(since, until, window, offset)
    asked = _Asked(span, zone, meter, feature, model, limit, cursor)
    query = asked.query(keys, dimension=dimension, value=value)
    return _usage(context.read(lambda connection: read_usage(connection, customer, query, context.now_ms)))


@reads("/v1/usage", tags=["usage"])
def get_fleet_usage(
    context: NamedDependency[Context],
    since: From = None,
    until: To = None,
    grain: FleetGrain = None,
    zone: Zone = None,
    group_by: FleetGroupBy = "customer,meter",
    meter: QueryKey = None,
    feature: QueryKey = None,
    model: QueryModel = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> Usage:
    """What every customer used, in order of customer, a page at a time. A page may be empty and yet have a next one: as
    many customers as ``limit`` are looked at, and some may have used nothing."""
    named = parse_keys(group_by, WHOLE)
    rest = _with_grain(grain, tuple(key for key in named if key != "customer"))
    asked = _Asked(asked_span(since, until), zone, meter, feature, model, limit, cursor)
    query = asked.query(("customer", *rest))
    return _usage(context.read(lambda connection: read_fleet_usage(connection, query, context.now_ms)))


def _usage(found: UsageFound) -> Usage:
    cursor = None if found.more_after is None else encode_cursor(found.more_after)
    return Usage(rfc3339(found.from_ms), rfc3339(found.to_ms), [_item(row) for row in found.rows], cursor)


def _with_grain(grain: str | None, keys: tuple[str, ...]) -> tuple[str, ...]:
    return keys if grain is None else (grain, *(key for key in keys if key != grain))


def _dimension(keys: tuple[str, ...], only: dict[str, str]) -> tuple[str, str | None]:
    """The one subject or tag that is asked for. Raises: Violation: there are two."""
    asked = {*only, *(key for key in keys if is_dimension(key))}
    if len(asked) > 1:
        names = ", ".join(sorted(asked))
        raise Violation("group_by", f"asks for {names}, of which sums are kept one by one", "one subject or tag")
    dimension = next(iter(asked), "")
    return dimension, only.get(dimension)


def _after(cursor: str, keys: tuple[str, ...]) -> Position:
    """Where a page begins. Raises: Violation: the cursor is none of ours, or of other keys."""
    after = decode_cursor(cursor, _POSITION)
    alone = keys[0] == "customer" and len(after) == 1
    kinds = [int if key in TIMES else str for key in keys[: 1 if alone else None]]
    if [type(part) for part in after] != kinds:
        raise Violation("cursor", "is of another question", "`next_cursor` of the page before, with its parameters")
    return after


def _item(row: dict[str, Any]) -> UsageItem:
    for key in [key for key in row if key.startswith(TAG)]:
        row["tag"] = row.pop(key)
    for key in TIMES:
        if key in row:
            row[key] = rfc3339(int(row[key]))
    return UsageItem(**row)


USAGE_HANDLERS = [get_usage, get_fleet_usage]
