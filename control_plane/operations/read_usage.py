"""Says what a customer used, or every customer, told apart as asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any

from control_plane.core.grains import (
    HOUR_MS,
    MINUTE_MS,
    ZONED,
    AskedSpan,
    Grain,
    Segment,
    by_minute,
    segments,
    splits,
    starts,
)
from control_plane.operations.change_customer import require_customer
from control_plane.operations.resolve_entitlement import calendar_of
from control_plane.store import customers, rollups, usage
from control_plane.store.database import Connection
from control_plane.store.usage import Sought
from protocol.ids import is_key
from protocol.instants import rfc3339
from protocol.violations import Violation
from protocol.windows import Calendar, Window

SUBJECTS = ("user", "workspace", "role", "api_key")
TAG = "tag:"
TIMES = tuple(grain.value for grain in Grain)
KEYS = ("meter", "feature", "model", *TIMES, *SUBJECTS, "tag:NAME")
WHOLE = ("customer", "meter", "feature", "model", "hour", "day", "week", "month")
"""What usage of all customers together can be told apart by."""

Row = dict[str, Any]
Position = tuple[str | int, ...]


@dataclass(frozen=True)
class UsageQuery:
    """Which usage is wanted.

    Attributes:
        span: of which time: whole minutes, and for a subject or tag whole hours.
        keys: what it is told apart by, in order; of subjects and tags at most one.
        zone: whose days, weeks and months; ``None``: UTC's.
        dimension: the subject or tag that is told apart or asked for; empty for neither.
        value: only what names this one; ``None``: whoever is named, and what names nobody.
        only: what meter, feature or model must be.
        after: continue after the group with these keys.
        count: at most so many groups.
    """

    span: AskedSpan
    keys: tuple[str, ...]
    zone: tzinfo | None = None
    dimension: str = ""
    value: str | None = None
    only: Mapping[str, str] = field(default_factory=dict)
    after: Position | None = None
    count: int = 1_000


@dataclass(frozen=True)
class UsageFound:
    """Sums of ``from_ms <= t < to_ms``, in order of their keys. ``more_after``: there are more, after this position."""

    from_ms: int
    to_ms: int
    rows: Sequence[Row]
    more_after: Position | None


def parse_keys(text: str, among: Sequence[str] = KEYS) -> tuple[str, ...]:
    """``meter,day`` as a list. Raises: Violation: an unknown key, one twice, or two of subjects and tags."""
    keys = tuple(text.split(","))
    for key in keys:
        if key not in among and not (key.startswith(TAG) and "tag:NAME" in among and is_key(key.removeprefix(TAG))):
            raise Violation("group_by", f"names {key!r}", "a list of " + ", ".join(among))
    if "tag:NAME" in keys:
        raise Violation("group_by", "names no tag", "tag: and the tag's name")
    if len(set(keys)) < len(keys):
        raise Violation("group_by", "names a key twice", "each once")
    if len([key for key in keys if is_dimension(key)]) > 1:
        expected = "one of " + ", ".join((*SUBJECTS, "tag:NAME"))
        raise Violation("group_by", "names two of the subjects and tags, of which sums are kept one by one", expected)
    return keys


def is_dimension(key: str) -> bool:
    """Whether sums are kept for each value of it, beside the total."""
    return key in SUBJECTS or key.startswith(TAG)


def read_usage(connection: Connection, customer: str, query: UsageQuery, now_ms: int) -> UsageFound:
    """Sums, in order of their keys; a subject or tag that was not named is ``""``.

    Raises: NotFound. Violation: what is asked for is not kept so finely, or for so long.
    """
    require_customer(connection, customer)
    calendar = calendar_of(connection, customer, now_ms) if query.span.window else Calendar()
    span = query.span.whole(HOUR_MS if query.dimension else MINUTE_MS, now_ms, calendar)
    sought = _sought(connection, [customer], span, query)
    rows = usage.sums(connection, sought, query.count + 1, query.after)
    shown = rows[: query.count]
    more_after = _position(shown[-1], sought.keys) if len(rows) > query.count else None
    return UsageFound(span.start_ms, span.end_ms, [_named(row, query) for row in shown], more_after)


def read_fleet_usage(connection: Connection, query: UsageQuery, now_ms: int) -> UsageFound:
    """Sums of all customers, one customer after the other: some are read at a time, so that no page looks at more.

    A position with nothing but a customer means that all of it was shown; a page may have no rows and yet a next one.

    Raises: Violation: as :func:`read_usage`.
    """
    span = query.span.whole(MINUTE_MS, now_ms, Calendar())
    after = query.after or ("",)
    names = [str(after[0])] if len(after) > 1 else []
    following = customers.after(connection, str(after[0]), query.count)
    names += [row.customer for row in following]
    rows: list[Row] = []
    sought = _sought(connection, names, span, query)
    if names:
        rows = usage.sums(connection, sought, query.count + 1, after if len(after) > 1 else None)
    shown = rows[: query.count]
    more_after: Position | None = None
    if len(rows) > query.count:
        more_after = _position(shown[-1], sought.keys)
    elif following:
        more_after = (names[-1],)
    return UsageFound(span.start_ms, span.end_ms, shown, more_after)


def _sought(connection: Connection, names: Sequence[str], span: Window, query: UsageQuery) -> Sought:
    """What the store is asked for. Raises: Violation."""
    grains = [Grain(key) for key in query.keys if key in TIMES]
    if query.zone is not None and not set(grains) & set(ZONED):
        raise Violation("zone", "is given, but nothing is told apart by days, weeks or months", "grain=day, or no zone")
    from_ms = span.start_ms
    times = {grain.value: segments(grain, from_ms, span.end_ms, query.zone) for grain in grains}
    cut = splits(from_ms, span.end_ms, list(times.values()))
    if cut and query.dimension:
        _refuse_minutes(query.dimension, grains, times)
    if cut and cut[0].from_ms < (since_ms := rollups.minutes_since(connection)):
        expected = f"whole hours of UTC, or nothing before {rfc3339(since_ms)}: sums by the minute are kept since then"
        raise Violation("from", "asks for parts of hours that are no longer kept", expected)
    first = query.keys[0]
    if query.after is not None and first in times:  # earlier buckets have been shown
        from_ms = max(from_ms, int(query.after[0]))
        cut = [part._replace(from_ms=max(part.from_ms, from_ms)) for part in cut if part.to_ms > from_ms]
    return Sought(
        customers=names,
        from_ms=from_ms,
        to_ms=span.end_ms,
        keys=["value" if key == query.dimension else key for key in query.keys],
        times=times,
        splits=cut,
        by_hour=not by_minute(list(times.values())),
        only=query.only,
        dimension=query.dimension,
        value=query.value,
        with_unnamed=query.dimension in query.keys and query.value is None,
    )


def _refuse_minutes(dimension: str, grains: Sequence[Grain], times: Mapping[str, Sequence[Segment]]) -> None:
    if Grain.MINUTE in grains:
        raise Violation("grain", f"is minute, and sums of {dimension} are kept by the hour", "hour, day, week or month")
    if any(at_ms % HOUR_MS for parts in times.values() for at_ms in starts(parts)):
        expected = "a zone whose days begin with an hour of UTC, or no subject and no tag"
        raise Violation("zone", f"begins days within an hour, and sums of {dimension} are kept by the hour", expected)


def _position(row: Row, keys: Sequence[str]) -> Position:
    return tuple(row[key] for key in keys)


def _named(row: Row, query: UsageQuery) -> Row:
    return {query.dimension if key == "value" else key: part for key, part in row.items()}
