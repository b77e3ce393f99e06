"""An entitlement: all that a customer may use now, as one document with a version; and which limits a call touches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, assert_never

import msgspec

from protocol.admission import Estimate
from protocol.events import Subject, UnfinishedCalls
from protocol.ids import Key
from protocol.units import METERS_MAX, TOKEN_CLASSES, Quantity, TokenClass
from protocol.windows import UTC_CALENDAR, Calendar, Window, WindowKind, window_at

LIMITS_MAX = 64
FEATURES_MAX = 256
CATALOG_METERS_MAX = 256
RATES_MAX = 128
ROLES_MAX = 32
MILLION = 1_000_000

# Names in rates are checked where a plan is published, against the catalog. Here only their length is: every host reads
# the price list of each of its customers, and looking for letters would be most of that work.
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class FeatureKind(StrEnum):
    """A feature is a switch, a configured value, or something that is counted; ``credit``: counted, and never without
    a balance of credits that its calls burn, which whoever publishes it sees to: to agents it is as ``metered``."""

    BOOLEAN = "boolean"
    STATIC = "static"
    METERED = "metered"
    CREDIT = "credit"


class LimitEnd(StrEnum):
    """What happens when a limit has been reached."""

    BLOCK = "block"
    THROTTLE = "throttle"
    OVERAGE = "overage"


class Scope(StrEnum):
    """Whose counter a limit is: one for the customer, or one for each subject of a kind, or value of a tag, inside it.

    Limits of all scopes on the path of a call must have room, so they form a tree: the sum of what the users of a
    customer may use can be more than what the customer may.
    """

    CUSTOMER = "customer"
    WORKSPACE = "workspace"
    USER = "user"
    ROLE = "role"
    API_KEY = "api_key"
    TAG = "tag"


class InFlight(StrEnum):
    """What a call in flight may do when its limit is reached before it ends.

    ``stop``: it gets no further slice; the stream is to be cut. ``finish``: it may go on into the limit's
    ``overage_max``, which is then kept for calls in flight alone; new calls are refused at ``amount``.
    """

    STOP = "stop"
    FINISH = "finish"


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
        scope_tag: for scope ``tag``: which tag's values have counters of their own.
        overage_max: for ``overage`` (and for ``finish``): how much may pass the limit at most. Always finite, always
            escrowed.
        smooth: a rate instead of a quota: ``amount`` a window, spread evenly, in a window of up to a day. In every span
            of time at most ``burst`` and the rate times the span are admitted, by all hosts together.
        burst: of a smooth limit: how much may come at once; ``None`` means ``amount``.
        in_flight: whether calls in flight may finish beyond the limit.
        batch_floor: how much of ``amount`` calls of priority ``batch`` must leave.
        estimate: what model calls must find room for, on all limits on their path: the most that one of them says.
        roles: counts only calls of these roles, in counters of their own; empty: of every role.
        except_roles: roles whose calls it does not count, because limits of their own do.
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
    scope_tag: Key | None = None
    smooth: bool = False
    burst: Quantity | None = None
    in_flight: InFlight = InFlight.STOP
    batch_floor: Quantity = 0
    estimate: Estimate = Estimate.SLICES
    roles: Annotated[tuple[Key, ...], msgspec.Meta(max_length=ROLES_MAX)] = ()
    except_roles: Annotated[tuple[Key, ...], msgspec.Meta(max_length=ROLES_MAX)] = ()

    @property
    def counter(self) -> str:
        """Identity of what is counted. Limits of two plans that count the same thing share the counter, so that no
        plan change ever clears or forgets usage."""
        window = f"{self.window.value}-rate" if self.smooth else self.window.value
        scope = self.scope.value if self.scope_tag is None else f"{self.scope.value}:{self.scope_tag}"
        whose = "@".join((scope, *self.roles))
        return f"{self.feature or '*'}/{self.meter}/{window}/{whose}"

    def is_for(self, role: str | None) -> bool:
        """Whether calls of this role are counted; ``None``: of calls that name none."""
        return (not self.roles or role in self.roles) and role not in self.except_roles

    @property
    def ceiling(self) -> int | None:
        """The most that may ever be used in one window: the amount and its escrowed overage."""
        return None if self.amount is None else self.amount + self.overage_max

    @property
    def admission_ceiling(self) -> int | None:
        """The most that new calls may bring a window to: where calls in flight may finish, the overage is theirs."""
        return self.amount if self.in_flight is InFlight.FINISH else self.ceiling

    @property
    def burst_max(self) -> int:
        """The most that a smooth limit admits at once."""
        return (self.amount or 0) if self.burst is None else self.burst

    @property
    def most_of_one_call(self) -> int | None:
        """What no single call may pass, however empty the counter: a rate never admits more than its burst at once."""
        return self.burst_max if self.smooth and self.amount is not None else self.admission_ceiling

    @property
    def is_counted(self) -> bool:
        """Whether it sums up use in windows: not what bounds a single call, a rate, or what is held at once."""
        return not self.smooth and self.window not in (WindowKind.REQUEST, WindowKind.IN_FLIGHT)

    @property
    def is_leased(self) -> bool:
        """Whether leases are cut from it: not from what bounds a single call, nor from what is unlimited."""
        return self.amount is not None and self.window is not WindowKind.REQUEST

    def window_at(self, at_ms: int, by: Calendar = UTC_CALENDAR) -> Window:
        """The window that holds an instant. Rates, and what is held at once, have one that never ends."""
        kind = WindowKind.LIFETIME if self.smooth else self.window
        return window_at(kind, at_ms, by)


FeatureValue = Annotated[Any, msgspec.Meta(description="any JSON value; null: none")]
"""What a static feature is set to. Its bounds are checked where it is published, so that no host need look again."""


class RoleTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a feature is for the calls of one role."""

    enabled: bool = True
    value: FeatureValue = None


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One feature of an entitlement: ``enabled`` for a boolean one, ``value`` for a static one.

    Attributes:
        by_role: for the roles named here this counts instead.
    """

    key: Key
    kind: FeatureKind
    enabled: bool = True
    value: FeatureValue = None
    by_role: Annotated[dict[Key, RoleTerms], msgspec.Meta(max_length=ROLES_MAX)] = {}

    def terms(self, role: str | None) -> Feature | RoleTerms:
        """What it is for calls of this role; ``None``: for calls that name none."""
        return self if role is None else self.by_role.get(role, self)


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How calls turn into a meter of their own, such as ``credits`` or ``cost_micros``: a pool that several features
    and models draw from at different rates is a limit on it. :mod:`protocol.rates` says which rate prices a call.

    Attributes:
        meter: what is made; callers never report it themselves.
        weights: millionths of a unit of it for one unit of each meter named.
        feature: calls of this feature; ``None``: of every feature.
        model: calls of this model; ``None``: of every model, also of those that nobody knows.
        classes: the same for token classes that cost other than the meter that they sum into.
        per: what comes out is divided by this: weights in micro-units of money make credits of so many micro-units.
        book: the price book and version that it comes from, as ``standard@3``; empty for a plan's own.
    """

    meter: _Name
    weights: Annotated[dict[_Name, Quantity], msgspec.Meta(min_length=1, max_length=METERS_MAX)]
    feature: _Name | None = None
    model: _Name | None = None
    classes: Annotated[dict[TokenClass, Quantity], msgspec.Meta(max_length=len(TOKEN_CLASSES))] = {}
    per: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] = 1
    book: Annotated[str, msgspec.Meta(max_length=140)] = ""


class CustomerStatus(StrEnum):
    """Whether a customer may use anything at all."""

    ACTIVE = "active"
    NO_SUBSCRIPTION = "no_subscription"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    TRIAL_ENDED = "trial_ended"
    EXPIRED = "expired"
    ARCHIVED = "archived"


class Entitlement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a customer may use now. ``version`` grows with every change; the newest one wins.

    Attributes:
        plan: the plan and version it came from, as ``pro@3``; empty without a subscription.
        meters: every meter that the catalog knows; a call that names another is refused, so that a misspelt meter
            never passes a limit unseen.
        ends_in_ms: for how long it holds by itself (the end of a trial or of a cancelled period), counted from the
            moment the agent asked; ``None`` if it does not end.
        rates: what calls are turned into, beside the meters that they report.
    """

    customer: Key
    version: int
    status: CustomerStatus
    plan: str = ""
    features: Annotated[tuple[Feature, ...], msgspec.Meta(max_length=FEATURES_MAX)] = ()
    limits: Annotated[tuple[Limit, ...], msgspec.Meta(max_length=LIMITS_MAX)] = ()
    meters: Annotated[tuple[Key, ...], msgspec.Meta(max_length=CATALOG_METERS_MAX)] = ()
    ends_in_ms: int | None = None
    rates: Annotated[tuple[Rate, ...], msgspec.Meta(max_length=RATES_MAX)] = ()
    unfinished_calls: UnfinishedCalls = UnfinishedCalls.ESTIMATED


def limits_on_path(
    limits: tuple[Limit, ...], feature: str, meters: Mapping[str, int], role: str | None
) -> Iterator[Limit]:
    """The limits that a call of ``feature`` by ``role`` must find room in, ``request`` windows included."""
    for limit in limits:
        if limit.meter in meters and (limit.feature is None or limit.feature == feature) and limit.is_for(role):
            yield limit


def scope_value(limit: Limit, subject: Subject, tags: Mapping[str, str]) -> str:
    """Which counter of a limit a call belongs to: ``""`` for the customer's own, else the subject or tag value.

    A call that does not say whose it is counts under ``""`` of such a limit: unattributed use shares one counter, so
    that leaving the user out is never a way round a limit.
    """
    match limit.scope:
        case Scope.CUSTOMER:
            return ""
        case Scope.WORKSPACE:
            return subject.workspace or ""
        case Scope.USER:
            return subject.user or ""
        case Scope.ROLE:
            return subject.role or ""
        case Scope.API_KEY:
            return subject.api_key or ""
        case Scope.TAG:
            return tags.get(limit.scope_tag or "", "")
        case _:
            assert_never(limit.scope)
