"""Usage over HTTP: sums of what a customer used."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from control_plane.api.context import Context
from control_plane.api.parameters import PathKey, QueryKey, QueryTag, named_subjects
from control_plane.api.verbs import reads
from control_plane.operations.read_usage import HOUR_MS, TAG, UsageQuery, is_dimension, parse_keys, read_usage
from protocol.instants import INSTANT_MS_MAX, from_datetime, rfc3339
from protocol.violations import Violation

TAGS = ["customers"]
SPAN_MS = 30 * 24 * HOUR_MS

From = Annotated[str | None, QueryParameter(name="from", max_length=40, description="RFC 3339; 30 days before `to`")]
To = Annotated[
    str | None, QueryParameter(name="to", max_length=40, description="RFC 3339; else the present hour's end")
]
GroupBy = Annotated[
    str,
    QueryParameter(
        max_length=200,
        description="of meter, feature, model, hour, day, and one of user, workspace, role, api_key, tag:NAME",
    ),
]


class UsageItem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One group; it carries the keys that were asked for. ``tag``: the value of the tag that was."""

    quantity: int
    events: int
    meter: str | None = None
    feature: str | None = None
    model: str | None = None
    user: str | None = None
    workspace: str | None = None
    role: str | None = None
    api_key: str | None = None
    tag: str | None = None
    hour: str | None = None
    day: str | None = None


class Usage(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """Sums of ``from <= hour < to``. A group without ``meter`` adds up quantities of different units."""

    from_: str
    to: str
    items: list[UsageItem]


@reads("/v1/customers/{customer:str}/usage", tags=TAGS)
def get_usage(
    customer: PathKey,
    context: NamedDependency[Context],
    since: From = None,
    until: To = None,
    group_by: GroupBy = "meter",
    user: QueryKey = None,
    workspace: QueryKey = None,
    role: QueryKey = None,
    api_key: QueryKey = None,
    tag: QueryTag = None,
) -> Usage:
    """What the customer used, told apart by the keys of ``group_by``; hours are of the events' own time. With a
    subject or a tag (``NAME:VALUE``), only what names it."""
    keys = parse_keys(group_by)
    only = named_subjects(user, workspace, role, api_key, tag)
    dimension, value = _dimension(keys, only)
    to_ms = -(-(context.now_ms + 1 if until is None else _instant("to", until)) // HOUR_MS) * HOUR_MS
    from_ms = (max(0, to_ms - SPAN_MS) if since is None else _instant("from", since)) // HOUR_MS * HOUR_MS
    if from_ms >= to_ms:
        raise Violation("from", "is not before `to`", "a span of at least an hour")
    query = UsageQuery(from_ms, to_ms, keys, dimension, value)
    rows = context.read(lambda connection: read_usage(connection, customer, query))
    return Usage(rfc3339(from_ms), rfc3339(to_ms), [_item(row) for row in rows])


def _dimension(keys: tuple[str, ...], only: dict[str, str]) -> tuple[str, str | None]:
    """The one subject or tag that is asked for. Raises: Violation: there are two."""
    asked = {*only, *(key for key in keys if is_dimension(key))}
    if len(asked) > 1:
        names = ", ".join(sorted(asked))
        raise Violation("group_by", f"asks for {names}, of which sums are kept one by one", "one subject or tag")
    dimension = next(iter(asked), "")
    return dimension, only.get(dimension)


def _item(row: dict[str, Any]) -> UsageItem:
    for key in [key for key in row if key.startswith(TAG)]:
        row["tag"] = row.pop(key)
    for key in ("hour", "day"):
        if key in row:
            row[key] = rfc3339(int(row[key]))
    return UsageItem(**row)


def _instant(field: str, text: str) -> int:
    expected = "an RFC 3339 instant with its zone, as 2026-11-24T05:00:00Z, from 1970 to 2199"
    try:
        at_ms = from_datetime(datetime.fromisoformat(text))
    except (ValueError, TypeError, OverflowError):
        raise Violation(field, "is no instant", expected) from None
    if not 0 <= at_ms < INSTANT_MS_MAX - HOUR_MS:
        raise Violation(field, "is out of bounds", expected)
    return at_ms


USAGE_HANDLERS = [get_usage]
