"""Instants in requests: RFC 3339 with an offset, or a word for one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from control_plane.core.arrangements import When
from protocol.instants import INSTANT_MS_MAX, from_datetime, rfc3339
from protocol.violations import Violation
from protocol.windows import Window

WORDS = "an instant such as 2026-12-31T00:00:00Z, between 1970 and 2200"
Instant = Annotated[str, msgspec.Meta(min_length=1, max_length=40, description=WORDS)]
WhenText = Annotated[
    str, msgspec.Meta(min_length=1, max_length=40, description="now, period_end, or an instant to come (RFC 3339)")
]


def instant_ms(text: str, field: str) -> int:
    """Milliseconds UTC. Raises: Violation: it is no instant, has no offset, or lies outside our calendar."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Violation(field, f"is {text!r}", WORDS) from None
    if moment.tzinfo is None:
        raise Violation(field, "has no offset from UTC", WORDS)
    try:
        at_ms = from_datetime(moment)
    except OverflowError:
        at_ms = -1
    if not 0 <= at_ms <= INSTANT_MS_MAX:
        raise Violation(field, "is outside our calendar", WORDS)
    return at_ms


def end_of(window: Window | None) -> str | None:
    """When a window ends, for people; ``None``: it never does, or there is none."""
    return None if window is None or window.end_ms == INSTANT_MS_MAX else rfc3339(window.end_ms)


def optional_ms(text: str | None, field: str) -> int | None:
    """The same, or ``None``."""
    return None if text is None else instant_ms(text, field)


def when_of(text: str, field: str = "when") -> When | int:
    """``now``, ``period_end``, or milliseconds UTC. Raises: Violation."""
    for when in When:
        if text == when.value:
            return when
    return instant_ms(text, field)
