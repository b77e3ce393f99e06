"""How finely usage is told apart in time, and which sums - by hour or by minute - an answer is made of. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import NamedTuple

from protocol.instants import INSTANT_MS_MAX, from_datetime, to_datetime
from protocol.violations import Violation
from protocol.windows import Calendar, Window, WindowKind, window_at

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
_MONDAY_MS = 4 * DAY_MS  # 1970-01-05
_LENGTHS = {"minute": (MINUTE_MS, 0), "hour": (HOUR_MS, 0), "day": (DAY_MS, 0), "week": (7 * DAY_MS, _MONDAY_MS)}

BUCKETS_MAX = 4_000
SEGMENTS_MAX = 400
SPAN_MS = 30 * DAY_MS
OFFSET_MIN = -1_200


class Grain(StrEnum):
    """Minutes and hours are those of UTC; days, weeks (from Monday) and months those of a time zone."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


ZONED = (Grain.DAY, Grain.WEEK, Grain.MONTH)


class AskedSpan(NamedTuple):
    """A span as somebody asks for it.

    Attributes:
        from_ms, to_ms: ``from_ms <= t < to_ms``; ``None``: 30 days before ``to_ms``, and the end of the present hour.
        window, offset: instead of these: the customer's own window, 0 for the present one, -1 for the one before.
    """

    from_ms: int | None = None
    to_ms: int | None = None
    window: WindowKind | None = None
    offset: int = 0

    def whole(self, unit_ms: int, now_ms: int, by: Calendar) -> Window:
        """The span in whole minutes or hours: rounded out; a window rounded down at both ends, so that windows together
        have everything once. Raises: Violation: it is empty, or there is no such window."""
        if self.window is not None:
            return self._window(self.window, unit_ms, now_ms, by)
        to_ms = now_ms - now_ms % HOUR_MS + HOUR_MS if self.to_ms is None else -(-self.to_ms // unit_ms) * unit_ms
        from_ms = max(0, to_ms - SPAN_MS) if self.from_ms is None else self.from_ms // unit_ms * unit_ms
        if from_ms >= to_ms:
            raise Violation("from", "is not before `to`", "a span of at least a minute")
        return Window(from_ms, to_ms)

    def _window(self, kind: WindowKind, unit_ms: int, now_ms: int, by: Calendar) -> Window:
        window = window_at(kind, now_ms, by)
        for _ in range(-self.offset):
            if window.start_ms <= 0:
                raise Violation("offset", "goes back beyond 1970", "a window since then")
            window = window_at(kind, window.start_ms - 1, by)
        return Window(max(0, window.start_ms // unit_ms * unit_ms), window.end_ms // unit_ms * unit_ms)


class Segment(NamedTuple):
    """Buckets of one length, one after the other: what is before ``end_ms`` is in the bucket that begins a whole
    number of ``length_ms`` after ``start_ms``. The last segment of a list has everything that is left."""

    end_ms: int
    start_ms: int
    length_ms: int


class Split(NamedTuple):
    """A part of an hour (or of a span) that is summed by the minute, because the hour's own sum has more in it."""

    hour_ms: int
    from_ms: int
    to_ms: int


def segments(grain: Grain, from_ms: int, to_ms: int, zone: tzinfo | None = None) -> list[Segment]:
    """The buckets of ``from_ms <= t < to_ms``: few segments, because all days between two clock changes are alike.

    Args:
        zone: whose days, weeks and months; ``None``: UTC's.

    Raises: Violation: there are too many for one answer.
    """
    if grain in _LENGTHS and (zone is None or grain not in ZONED):
        length_ms, offset_ms = _LENGTHS[grain]
        return [Segment(to_ms, from_ms - (from_ms - offset_ms) % length_ms, length_ms)]
    found: list[Segment] = []
    start_ms, count = None, 0
    for next_ms in _starts(grain, from_ms, to_ms, zone or UTC):
        if start_ms is not None:
            count += 1
            length_ms = next_ms - start_ms
            if found and found[-1].length_ms == length_ms:
                found[-1] = found[-1]._replace(end_ms=next_ms)
            else:
                found.append(Segment(next_ms, start_ms, length_ms))
        start_ms = next_ms
        if count > BUCKETS_MAX or len(found) > SEGMENTS_MAX:
            raise Violation("from", f"asks for more than {BUCKETS_MAX} days or {SEGMENTS_MAX} months", "a shorter span")
    return found


def bucket(parts: Sequence[Segment], at_ms: int) -> int:
    """The instant at which the bucket of ``at_ms`` begins."""
    part = next((part for part in parts if at_ms < part.end_ms), parts[-1])
    return at_ms - (at_ms - part.start_ms) % part.length_ms


def starts(parts: Sequence[Segment]) -> Iterator[int]:
    """Where buckets begin, in order, and where the last one ends."""
    for part in parts:
        yield from range(part.start_ms, part.end_ms, part.length_ms)
    yield parts[-1].end_ms


def splits(from_ms: int, to_ms: int, kinds: Sequence[Sequence[Segment]]) -> list[Split]:
    """The hours in which something begins or ends, cut to the span: what must be summed by the minute.

    Args:
        from_ms, to_ms: the span, in whole minutes.
        kinds: the segments of each grain that is told apart.
    """
    if by_minute(kinds):
        return [Split(from_ms, from_ms, to_ms)]
    ragged = {at_ms - at_ms % HOUR_MS for at_ms in (from_ms, to_ms) if at_ms % HOUR_MS}
    for parts in kinds:
        for part in parts:
            if part.start_ms % HOUR_MS or part.length_ms % HOUR_MS:
                ragged |= {at_ms - at_ms % HOUR_MS for at_ms in starts([part]) if at_ms % HOUR_MS}
    inside = sorted(hour_ms for hour_ms in ragged if from_ms < hour_ms + HOUR_MS and hour_ms < to_ms)
    return [Split(hour_ms, max(hour_ms, from_ms), min(hour_ms + HOUR_MS, to_ms)) for hour_ms in inside]


def by_minute(kinds: Sequence[Sequence[Segment]]) -> bool:
    """Whether anything is told apart more finely than by the hour: then all of it is summed by the minute."""
    return any(part.length_ms == MINUTE_MS for parts in kinds for part in parts)


def _starts(grain: Grain, from_ms: int, to_ms: int, zone: tzinfo) -> Iterator[int]:
    """Where buckets begin, from the one that holds ``from_ms`` to the first at or after ``to_ms``."""
    day = to_datetime(from_ms).astimezone(zone).date()
    if grain is Grain.WEEK:
        day -= timedelta(days=day.weekday())
    elif grain is Grain.MONTH:
        day = day.replace(day=1)
    last_ms = -1
    while last_ms < to_ms:
        at_ms = min(_midnight(day, zone), INSTANT_MS_MAX)
        if at_ms > last_ms:  # a zone that crosses the date line leaves a day out
            yield at_ms
        last_ms = at_ms
        day = _next(grain, day)


def _next(grain: Grain, day: date) -> date:
    if grain is Grain.MONTH:
        return (day + timedelta(days=31)).replace(day=1)
    return day + timedelta(days=7 if grain is Grain.WEEK else 1)


def _midnight(day: date, zone: tzinfo) -> int:
    """When the day begins: where clocks skip midnight, when they do; where it comes twice, the first time."""
    return from_datetime(datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC))
