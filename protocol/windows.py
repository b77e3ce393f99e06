"""Windows: half-open spans of time, computed from instants. Nothing resets a counter; a new window is a new one.

The control plane names the window of every lease; an agent's clock never chooses a month.
"""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, assert_never

from protocol.instants import INSTANT_MS_MAX, from_datetime, to_datetime

_DAY_MS = 86_400_000


class WindowKind(StrEnum):
    """How long a counter counts. ``request`` bounds one call and keeps no counter at all; ``in_flight`` counts what is
    held at the same time, and forgets it when the call ends."""

    REQUEST = "request"
    IN_FLIGHT = "in_flight"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    BILLING_PERIOD = "billing_period"
    LIFETIME = "lifetime"


class Window(NamedTuple):
    """``start_ms <= t < end_ms``, both instants in UTC."""

    start_ms: int
    end_ms: int


def window_at(kind: WindowKind, at_ms: int, anchor_ms: int = 0) -> Window:
    """The window of ``kind`` that holds the instant ``at_ms``.

    Args:
        kind: any kind but ``request``, which has no span.
        at_ms: instant, milliseconds UTC.
        anchor_ms: where billing periods begin: the same day of month and time of day, each month. A day that a month
            lacks becomes that month's last (31 January -> 28 February -> 31 March: the anchor's day is kept).
    """
    match kind:
        case WindowKind.MINUTE:
            return _fixed(at_ms, 60_000)
        case WindowKind.HOUR:
            return _fixed(at_ms, 3_600_000)
        case WindowKind.DAY:
            return _fixed(at_ms, _DAY_MS)
        case WindowKind.WEEK:  # ISO 8601: weeks begin on Monday; 1970-01-01 was a Thursday
            return _fixed(at_ms, 7 * _DAY_MS, offset_ms=4 * _DAY_MS)
        case WindowKind.MONTH:
            return _monthly(at_ms, 0)
        case WindowKind.BILLING_PERIOD:
            return _monthly(at_ms, anchor_ms)
        case WindowKind.LIFETIME | WindowKind.IN_FLIGHT:
            return Window(0, INSTANT_MS_MAX)
        case WindowKind.REQUEST:
            raise ValueError("a request window has no span: it bounds a single call")
        case _:
            assert_never(kind)


def _fixed(at_ms: int, length_ms: int, offset_ms: int = 0) -> Window:
    start = at_ms - (at_ms - offset_ms) % length_ms
    return Window(start, start + length_ms)


def _monthly(at_ms: int, anchor_ms: int) -> Window:
    anchor = to_datetime(anchor_ms)
    at = to_datetime(at_ms)
    months = at.year * 12 + at.month - 1
    start = _anchored(anchor, months)
    if start > at:
        months -= 1
        start = _anchored(anchor, months)
    return Window(from_datetime(start), min(from_datetime(_anchored(anchor, months + 1)), INSTANT_MS_MAX))


def _anchored(anchor: datetime, months: int) -> datetime:
    year, month = divmod(months, 12)
    first = datetime(year, month + 1, 1, tzinfo=UTC)
    day = min(anchor.day, calendar.monthrange(year, month + 1)[1])
    midnight = anchor.replace(hour=0, minute=0, second=0, microsecond=0)
    return first + timedelta(days=day - 1) + (anchor - midnight)
