"""Instants and durations: whole milliseconds, UTC, and their RFC 3339 form for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

INSTANT_MS_MAX = 7_258_118_400_000  # 2200-01-01T00:00:00Z: far enough, and calendar arithmetic beyond it stays valid
DURATION_MS_MAX = INSTANT_MS_MAX  # what is left of a window that never ends is a duration, too

InstantMs = Annotated[int, msgspec.Meta(ge=0, le=INSTANT_MS_MAX)]
DurationMs = Annotated[int, msgspec.Meta(ge=0, le=DURATION_MS_MAX)]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(at_ms: int) -> datetime:
    """The aware UTC datetime of an instant."""
    return _EPOCH + timedelta(milliseconds=at_ms)


def from_datetime(moment: datetime) -> int:
    """Whole milliseconds since 1970 of an aware datetime; anything finer is dropped."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def rfc3339(at_ms: int) -> str:
    """``2026-11-24T05:06:07Z``, with milliseconds only where there are any."""
    moment = to_datetime(at_ms)
    if at_ms % 1000:
        return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def from_rfc3339(text: str) -> int:
    """Milliseconds of an instant with its zone. Raises: ValueError: it is none, or not from 1970 to 2199."""
    try:
        at_ms = from_datetime(datetime.fromisoformat(text))
    except (TypeError, OverflowError) as wrong:  # no zone; a year that does not exist in UTC
        raise ValueError(text) from wrong
    if not 0 <= at_ms < INSTANT_MS_MAX:
        raise ValueError(text)
    return at_ms
