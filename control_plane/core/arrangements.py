"""What is written down when somebody arranges something of a subscription, now or for later."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from control_plane.core.subscriptions import Change, Terms, Track, Trial, in_order
from protocol.violations import Violation
from protocol.windows import WindowKind, window_at


class When(StrEnum):
    """When a change shall take effect, beside an instant."""

    NOW = "now"
    PERIOD_END = "period_end"


@dataclass(frozen=True)
class Arrangement:
    """What is to be written: new changes, and the numbers of those that they replace."""

    changes: tuple[Change, ...] = ()
    replaced: tuple[int, ...] = ()


def arrange(
    changes: Iterable[Change], wanted: Iterable[tuple[Track, Any, int]], now_ms: int, *, whole: Iterable[Track] = ()
) -> Arrangement:
    """Give tracks values, each from an instant on.

    A new arrangement for a track replaces what was still to come on it. What is so already is not written again.

    Args:
        whole: tracks on which nothing is to come any more, even if nothing is wanted of them.
    """
    known = list(changes)
    orders = sorted(wanted, key=lambda order: order[2])
    touched = {track for track, _, _ in orders} | set(whole)
    coming = [one for one in known if one.track in touched and one.from_ms > now_ms]
    standing = {track: _value(known, track, now_ms) for track in touched}
    told = {track: [(one.value, one.from_ms) for one in in_order(coming) if one.track is track] for track in touched}
    new: list[Change] = []
    replaced: list[int] = []
    for track in sorted(touched):
        later = [(value, max(from_ms, now_ms)) for mine, value, from_ms in orders if mine is track]
        if later and later[0][1] == now_ms and later[0][0] == standing[track]:
            later = later[1:]
        if later == told[track]:
            continue
        replaced += [one.serial for one in coming if one.track is track]
        new += [Change(track, value, from_ms) for value, from_ms in later]
    return Arrangement(tuple(new), tuple(replaced))


def _value(changes: list[Change], track: Track, at_ms: int) -> Any:
    past = [one for one in in_order(changes) if one.track is track and one.from_ms <= at_ms]
    return past[-1].value if past else _DEFAULTS.get(track)


_DEFAULTS = {Track.PAUSE: False, Track.CANCELLATION: False, Track.TERM: False, Track.SEATS: 1, Track.ADD_ONS: ()}


def instant_of(when: When | int, terms: Terms | None, now_ms: int, field: str = "when") -> int:
    """When a change takes effect, milliseconds.

    Raises: Violation: the instant has passed, or there is no period that could end.
    """
    if isinstance(when, int):
        if when <= now_ms:
            raise Violation(field, "is not to come", "an instant after now, or now")
        return when
    if when is When.NOW:
        return now_ms
    if terms is None:
        raise Violation(field, "is 'period_end' without a subscription", "now, or an instant")
    return window_at(WindowKind.BILLING_PERIOD, now_ms, terms.calendar).end_ms


def trial_end_ms(changes: Iterable[Change], now_ms: int) -> int | None:
    """When a trial that is running ends; ``None`` without one."""
    coming = [one for one in in_order(changes) if one.track is Track.TRIAL and one.from_ms > now_ms]
    return next((one.from_ms for one in coming if one.value is not Trial.RUNNING), None)
