"""Spans of time in queries: from and to, or a window of the customer's own; and whose days are meant."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from litestar.params import QueryParameter

from control_plane.api.instants import optional_ms
from control_plane.core.grains import OFFSET_MIN, AskedSpan
from protocol.violations import Violation
from protocol.windows import WindowKind

From = Annotated[str | None, QueryParameter(name="from", max_length=40, description="RFC 3339; 30 days before `to`")]
To = Annotated[
    str | None, QueryParameter(name="to", max_length=40, description="RFC 3339; else the present hour's end")
]
SpanWindow = Annotated[
    Literal["hour", "day", "week", "month", "billing_period"] | None,
    QueryParameter(description="instead of `from` and `to`: the customer's own window"),
]
Offset = Annotated[int, QueryParameter(ge=OFFSET_MIN, le=0, description="0: the present `window`, -1: the one before")]
Zone = Annotated[
    str | None,
    QueryParameter(
        pattern=r"^[A-Za-z][A-Za-z0-9_+/-]{0,63}\Z",
        max_length=64,
        description="an IANA time zone, as Europe/Berlin, whose days, weeks and months are meant; else UTC's",
    ),
]


def asked_span(since: str | None, until: str | None, window: str | None = None, offset: int = 0) -> AskedSpan:
    """Which span is asked for. Raises: Violation: no instants, or two ways of saying it."""
    if window is not None and (since is not None or until is not None):
        raise Violation("window", "is given beside `from` or `to`", "one of the two")
    if window is None and offset:
        raise Violation("offset", "is given without `window`", "a window of which it is the offset")
    kind = None if window is None else WindowKind(window)
    return AskedSpan(optional_ms(since, "from"), optional_ms(until, "to"), kind, offset)


def zone_of(name: str | None) -> ZoneInfo | None:
    """A time zone. Raises: Violation: nobody knows it."""
    if name is None:
        return None
    if name not in _zones():
        raise Violation("zone", "is no time zone that is known here", "an IANA name, as Europe/Berlin or Asia/Kolkata")
    return ZoneInfo(name)


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
