"""Says when limits will be reached at the rate at which they are used now.

The rate is that of the last hour: for what the customer as a whole may use, of the last 60 minutes; for a subject or
tag value, whose sums are kept by the hour, since the beginning of the hour before this one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from control_plane.core.exhaustion import exhausts_in_ms
from control_plane.core.grains import HOUR_MS, MINUTE_MS
from control_plane.core.kinds import counted
from control_plane.store import rollups, usage
from control_plane.store.database import Connection
from protocol.entitlements import Limit
from protocol.windows import Window


class Standing(NamedTuple):
    """What remains of one limit for one scope value; ``None``: it has no end."""

    limit: Limit
    window: Window | None
    scope_value: str
    remaining: int | None


def foresee_exhaustion(
    connection: Connection, customer: str, standings: Sequence[Standing], now_ms: int
) -> list[int | None]:
    """In how many milliseconds each of them will be reached; ``None``: not within its window, or nobody can tell.

    Nobody can tell of the calls that name no subject of a kind, and of those of one role inside another scope: their
    sums are not kept.
    """
    asked: dict[tuple[str, str, str | None], set[str]] = defaultdict(set)
    for one in standings:
        if (about := _about(one)) is not None and about[0]:
            asked[about].add(one.scope_value)
    since_ms = now_ms - now_ms % HOUR_MS - HOUR_MS
    by_subject = {
        about: usage.of_values(connection, customer, about, sorted(values), since_ms) for about, values in asked.items()
    }
    minutes_ms = max(now_ms - now_ms % MINUTE_MS - HOUR_MS, rollups.minutes_since(connection))
    whole = usage.since(connection, customer, minutes_ms) if standings else {}
    found: list[int | None] = []
    for one in standings:
        about = _about(one)
        if about is None or one.window is None or one.remaining is None:
            found.append(None)
            continue
        used = by_subject[about].get(one.scope_value, 0) if about[0] else _sum(whole, about)
        span_ms = now_ms - (since_ms if about[0] else minutes_ms)
        found.append(exhausts_in_ms(one.remaining, used, span_ms, now_ms, one.window))
    return found


def _about(one: Standing) -> tuple[str, str, str | None] | None:
    """Of which dimension, meter and feature the use counts; ``None`` where no sums tell."""
    what = counted(one.limit.counter)
    if one.window is None or one.remaining is None or what.role or (what.dimension and not one.scope_value):
        return None
    return what.dimension, what.meter, what.feature


def _sum(whole: Mapping[tuple[str, str], int], about: tuple[str, str, str | None]) -> int:
    _, meter, feature = about
    return sum(quantity for (of, used_by), quantity in whole.items() if of == meter and feature in {None, used_by})
