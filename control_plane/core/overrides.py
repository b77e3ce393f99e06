"""Overrides: what one customer has otherwise than its plan says, with a reason, an author, and perhaps an end."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

import msgspec

from protocol.entitlements import Feature, FeatureValue, Limit
from protocol.ids import Key
from protocol.units import QUANTITY_MAX, Quantity


class OverrideBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is otherwise: of one feature or of one limit.

    Attributes:
        feature: which feature; ``enabled`` and ``value`` are what it is instead.
        limit: which limit; ``amount`` is what it allows instead (``unlimited``: anything), ``add`` what it allows more
            (negative: less) than it would without this override.
    """

    feature: Key | None = None
    enabled: bool | None = None
    value: FeatureValue = None
    limit: Key | None = None
    amount: Quantity | None = None
    unlimited: bool = False
    add: int = 0


class OverrideStatus(StrEnum):
    """Whether it counts now."""

    SCHEDULED = "scheduled"
    ACTIVE = "active"
    ENDED = "ended"


class Override(NamedTuple):
    """One override. It counts for ``from_ms <= t < until_ms``; ``until_ms`` of ``None``: until it is taken back.

    ``serial``: which of two was made later.
    """

    override: str
    body: OverrideBody
    from_ms: int
    until_ms: int | None
    serial: int = 0

    def status(self, at_ms: int) -> OverrideStatus:
        """Whether it counts at an instant."""
        if at_ms < self.from_ms:
            return OverrideStatus.SCHEDULED
        return OverrideStatus.ACTIVE if self.until_ms is None or at_ms < self.until_ms else OverrideStatus.ENDED


def active(overrides: Iterable[Override], at_ms: int) -> list[Override]:
    """Those that count at an instant, in the order in which they were made."""
    found = [one for one in overrides if one.status(at_ms) is OverrideStatus.ACTIVE]
    return sorted(found, key=lambda one: one.serial)


def edges(overrides: Iterable[Override]) -> Iterable[int]:
    """Every instant at which one of them begins or ends."""
    for one in overrides:
        yield one.from_ms
        if one.until_ms is not None:
            yield one.until_ms


def with_feature(feature: Feature, overrides: Iterable[Override]) -> Feature:
    """The feature as these make it: the newest counts, but one that switches it off wins over all that switch it on.

    An override is for the customer as a whole: it counts for every role.
    """
    found, off = feature, False
    for one in overrides:
        body = one.body
        if body.feature != feature.key:
            continue
        enabled = found.enabled if body.enabled is None else body.enabled
        off = off or body.enabled is False
        value = found.value if body.value is None else body.value
        found = Feature(feature.key, feature.kind, enabled, value)
    return Feature(feature.key, feature.kind, enabled=False, value=found.value) if off else found


def with_limit(limit: Limit, overrides: Iterable[Override]) -> Limit:
    """The limit as these make it: the newest amount, and then everything that is added; never less than nothing."""
    amount, more = limit.amount, 0
    for one in overrides:
        body = one.body
        if body.limit != limit.key:
            continue
        if body.unlimited:
            amount = None
        elif body.amount is not None:
            amount = body.amount
        more += body.add
    if amount is None:
        return limit if limit.amount is None else msgspec.structs.replace(limit, amount=None, overage_max=0)
    amount = max(0, min(amount + more, QUANTITY_MAX - limit.overage_max))
    return limit if amount == limit.amount else msgspec.structs.replace(limit, amount=amount)
