"""Moves a subscription from older versions of a plan or add-on to a newer one, whatever else is arranged. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from control_plane.core.entitlements import Document
from control_plane.core.subscriptions import Change, Track, in_order
from protocol.entitlements import Limit
from protocol.windows import WindowKind


@dataclass(frozen=True)
class Target:
    """What is moved, and to which version.

    Attributes:
        track: ``Track.PLAN`` or ``Track.ADD_ONS``. key: of the plan or add-on.
        versions: those that are left for it; empty: every older one.
    """

    track: Track
    key: str
    to: int
    versions: frozenset[int] = frozenset()

    def moved(self, value: Any) -> Any:
        """A value of the track as it is afterwards."""
        if self.track is Track.PLAN:
            key, version = value
            return (key, self.to if key == self.key and self._is_meant(version) else version)
        return tuple(
            msgspec.structs.replace(one, version=self.to)
            if one.add_on == self.key and self._is_meant(one.version)
            else one
            for one in value
        )

    def _is_meant(self, version: int) -> bool:
        return version != self.to and (version in self.versions if self.versions else version < self.to)


Orders = list[tuple[Track, Any, int]]


def orders(changes: Iterable[Change], target: Target, from_ms: int, now_ms: int) -> Orders | None:
    """The whole future of the track, for :func:`control_plane.core.arrangements.arrange`: what was to come comes, and
    from ``from_ms`` on the new version stands wherever an older one did. ``None``: there is nothing to move."""
    ordered = [one for one in in_order(changes) if one.track is target.track]
    future: Orders = [(one.track, one.value, one.from_ms) for one in ordered if now_ms < one.from_ms < from_ms]
    before = [one for one in ordered if one.from_ms <= from_ms]
    after = [one for one in ordered if one.from_ms > from_ms]
    found = False
    for at_ms, one in [*((from_ms, one) for one in before[-1:]), *((one.from_ms, one) for one in after)]:
        moved = target.moved(one.value)
        found = found or moved != tuple(one.value)
        future.append((target.track, moved, at_ms))
    return future if found else None


def lowered(before: Document, after: Document) -> list[tuple[Limit, int | None]]:
    """Limits that count use in windows and allow less afterwards, with what they allowed before; a limit that was not
    there allowed everything. Balances of credit are left out: grants say how much they allow."""
    known = {limit.counter: limit.amount for limit in before.limits}
    found = []
    for limit in after.limits:
        if not limit.is_counted or limit.amount is None or limit.window is WindowKind.GRANTS:
            continue
        amount = known.get(limit.counter)
        if amount is None or amount > limit.amount:
            found.append((limit, amount))
    return found
