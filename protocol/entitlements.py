"""An entitlement: all that a customer may use now, as one document with a version; and which limits a call touches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated

import msgspec

from protocol.ids import Key
from protocol.units import Quantity
from protocol.windows import WindowKind

LIMITS_MAX = 64
FEATURES_MAX = 256
CATALOG_METERS_MAX = 256


class FeatureKind(StrEnum):
    """A feature is a switch, a configured value, or something that is counted."""

    BOOLEAN = "boolean"
    STATIC = "static"
    METERED = "metered"


class LimitEnd(StrEnum):
    """What happens when a limit has been reached."""

    BLOCK = "block"
    THROTTLE = "throttle"
    OVERAGE = "overage"


class Scope(StrEnum):
    """Whose counter a limit is: one for the customer, or one for each user inside it."""

    CUSTOMER = "customer"
    USER = "user"


class WhenOffline(StrEnum):
    """What an agent does with a lease whose term has passed while the control plane cannot be reached.

    ``drain`` spends it to its end (safe: it stays charged); ``stop`` refuses at once, for what must be revocable.
    """

    DRAIN = "drain"
    STOP = "stop"


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of a meter, in which window, for which scope, and what happens at the end of it.

    Attributes:
        key: the limit's name; refusals name it.
        meter: what is counted.
        amount: how much; ``None`` means unlimited, said openly and never as a huge number.
        window: how long it counts; ``request`` bounds each call by itself.
        feature: counts only calls of this feature; ``None`` counts all.
        overage_max: for ``overage``: how much may pass the limit at most. Always finite, always escrowed.
    """

    key: Key
    meter: Key
    amount: Quantity | None
    window: WindowKind
    feature: Key | None = None
    scope: Scope = Scope.CUSTOMER
    at_end: LimitEnd = LimitEnd.BLOCK
    overage_max: Quantity = 0
    when_offline: WhenOffline = WhenOffline.DRAIN

    @property
    def counter(self) -> str:
        """Identity of what is counted. Limits of two plans that count the same thing share the counter, so that no
        plan change ever clears or forgets usage."""
        return f"{self.feature or '*'}/{self.meter}/{self.window.value}/{self.scope.value}"

    @property
    def ceiling(self) -> int | None:
        """The most that may ever be used in one window: the amount and its escrowed overage."""
        return None if self.amount is None else self.amount + self.overage_max


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One feature of an entitlement: ``enabled`` for a boolean one, ``value`` for a static one."""

    key: Key
    kind: FeatureKind
    enabled: bool = True
    value: Annotated[str, msgspec.Meta(max_length=4096)] | int | bool | None = None


class CustomerStatus(StrEnum):
    """Whether a customer may use anything at all."""

    ACTIVE = "active"
    NO_SUBSCRIPTION = "no_subscription"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    ARCHIVED = "archived"


class Entitlement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a customer may use now. ``version`` grows with every change; the newest one wins.

    Attributes:
        plan: the plan and version it came from, as ``pro@3``; empty without a subscription.
        meters: every meter that the catalog knows; a call that names another is refused, so that a misspelt meter
            never passes a limit unseen.
        ends_in_ms: for how long it holds by itself (the end of a trial or of a cancelled period), counted from the
            moment the agent asked; ``None`` if it does not end.
    """

    customer: Key
    version: int
    status: CustomerStatus
    plan: str = ""
    features: Annotated[tuple[Feature, ...], msgspec.Meta(max_length=FEATURES_MAX)] = ()
    limits: Annotated[tuple[Limit, ...], msgspec.Meta(max_length=LIMITS_MAX)] = ()
    meters: Annotated[tuple[Key, ...], msgspec.Meta(max_length=CATALOG_METERS_MAX)] = ()
    ends_in_ms: int | None = None


def limits_on_path(limits: tuple[Limit, ...], feature: str, meters: Mapping[str, int]) -> Iterator[Limit]:
    """The limits that a call of ``feature`` using ``meters`` must find room in, ``request`` windows included."""
    for limit in limits:
        if limit.meter in meters and (limit.feature is None or limit.feature == feature):
            yield limit


def scope_value(limit: Limit, user: str | None) -> str:
    """Which counter of a limit a call belongs to: ``""`` for the customer's own, else the user.

    A call without a user is counted under ``""`` of a per-user limit: unattributed use shares one counter, so that
    leaving the user out is never a way round a limit.
    """
    return (user or "") if limit.scope is Scope.USER else ""
