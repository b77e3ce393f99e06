"""Windows: half-open spans of time, computed from instants. Nothing resets a counter; a new window is a new one.

The control plane names the window of every lease; an agent's clock never chooses a month.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, assert_never
from zoneinfo import ZoneInfo

from protocol.instants import INSTANT_MS_MAX, from_datetime, to_datetime

_DAY_MS = 86_400_000
_FIRST_OF_MONTH = datetime(1970, 1, 1)  # noqa: DTZ001 - what a clock of any zone shows
_EPOCH_ORDINAL = _FIRST_OF_MONTH.toordinal()


class WindowKind(StrEnum):
    """How long a counter counts. ``request`` bounds one call and keeps no counter at all; ``in_flight`` counts what is
    held at the same time, and forgets it when the call ends; ``grants`` is a balance that grants of credit fill and use
    burns: it never resets."""

    REQUEST = "request"
    IN_FLIGHT = "in_flight"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    BILLING_PERIOD = "billing_period"
    LIFETIME = "lifetime"
    GRANTS = "grants"


class Window(NamedTuple):
    """``start_ms <= t < end_ms``, both instants in UTC."""

    start_ms: int
    end_ms: int


class Calendar(NamedTuple):
    """By which calendar a customer's windows are told.

    Attributes:
        anchor_ms: where billing periods begin: the same day of month and time of day on the zone's clocks, each period.
            A day that a month lacks becomes its last (31 January -> 28 February -> 31 March: the day is kept).
        zone: an IANA name; days, weeks, months and billing periods begin on its clocks, daylight saving included.
        months: how long a billing period is: 1, 3, 6, 12 ...
    """

    anchor_ms: int = 0
    zone: str = "UTC"
    months: int = 1


UTC_CALENDAR = Calendar()


def window_at(kind: WindowKind, at_ms: int, by: Calendar = UTC_CALENDAR) -> Window:
    """The window of ``kind`` that holds the instant ``at_ms``, milliseconds UTC.

    Minutes and hours are those of UTC. A day, week, month or billing period begins when the zone's clocks first show
    its beginning; where they skip that time, as long after the skip as it would have been after midnight.

    Raises: ValueError: ``request``, which has no span. zoneinfo.ZoneInfoNotFoundError: no such zone.
    """
    match kind:
        case WindowKind.MINUTE:
            return _fixed(at_ms, 60_000)
        case WindowKind.HOUR:
            return _fixed(at_ms, 3_600_000)
        case WindowKind.DAY if by.zone == "UTC":
            return _fixed(at_ms, _DAY_MS)
        case WindowKind.WEEK if by.zone == "UTC":  # ISO 8601: weeks begin on Monday; 1970-01-01 was a Thursday
            return _fixed(at_ms, 7 * _DAY_MS, offset_ms=4 * _DAY_MS)
        case WindowKind.DAY:
            return _calendar(at_ms, by.zone, _days(1, 0))
        case WindowKind.WEEK:
            return _calendar(at_ms, by.zone, _days(7, 4))
        case WindowKind.MONTH:
            return _calendar(at_ms, by.zone, _months(_FIRST_OF_MONTH, 1))
        case WindowKind.BILLING_PERIOD:
            return _calendar(at_ms, by.zone, _months(_reading(by.anchor_ms, by.zone), by.months))
        case WindowKind.LIFETIME | WindowKind.IN_FLIGHT | WindowKind.GRANTS:
            return Window(0, INSTANT_MS_MAX)
        case WindowKind.REQUEST:
            raise ValueError("a request window has no span: it bounds a single call")
        case _:
            assert_never(kind)


def _fixed(at_ms: int, length_ms: int, offset_ms: int = 0) -> Window:
    start = at_ms - (at_ms - offset_ms) % length_ms
    return Window(start, start + length_ms)


class _Division(NamedTuple):
    """How clocks divide time into numbered spans: ``number`` of the one that shows a reading, and its ``beginning``."""

    number: Callable[[datetime], int]
    beginning: Callable[[int], datetime]


def _calendar(at_ms: int, zone: str, division: _Division) -> Window:
    """Readings of a clock that is set back come twice, so the number that a reading says may be off by one."""
    clock = _zone(zone)
    number = division.number(_reading(at_ms, zone))

    def begins(number: int) -> int:
        return from_datetime(division.beginning(number).replace(tzinfo=clock))

    start, end = begins(number), begins(number + 1)
    while at_ms < start:
        number -= 1
        start, end = begins(number), start
    while at_ms >= end:
        number += 1
        start, end = end, begins(number + 1)
    return Window(max(0, start), min(end, INSTANT_MS_MAX))


def _reading(at_ms: int, zone: str) -> datetime:
    """What the zone's clocks show."""
    return to_datetime(at_ms).astimezone(_zone(zone)).replace(tzinfo=None)


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _days(length: int, offset: int) -> _Division:
    """Spans of so many days, one of which begins ``offset`` days after the first of 1970."""
    first = _EPOCH_ORDINAL + offset
    return _Division(
        lambda reading: (reading.toordinal() - first) // length,
        lambda number: datetime.fromordinal(first + number * length),
    )


def _months(anchor: datetime, length: int) -> _Division:
    """Spans of so many months, one of which begins at the anchor, or on the last day of a month that lacks its day."""
    first = anchor.year * 12 + anchor.month - 1
    time_of_day = anchor - anchor.replace(hour=0, minute=0, second=0, microsecond=0)

    def beginning(number: int) -> datetime:
        year, month = divmod(first + number * length, 12)
        day = min(anchor.day, monthrange(year, month + 1)[1])
        return datetime(year, month + 1, day) + time_of_day  # noqa: DTZ001 - what a clock of any zone shows

    return _Division(lambda reading: (reading.year * 12 + reading.month - 1 - first) // length, beginning)
