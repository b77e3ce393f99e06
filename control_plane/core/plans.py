"""What a plan or an add-on says, as its author writes it and as it is published."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec

from control_plane.core.price_books import USES_MAX, PriceBookUse
from protocol.entitlements import (
    FEATURES_MAX,
    LIMITS_MAX,
    RATES_MAX,
    ROLES_MAX,
    Feature,
    FeatureValue,
    Limit,
    Rate,
    RoleTerms,
)
from protocol.events import UnfinishedCalls
from protocol.ids import Key
from protocol.units import Quantity
from protocol.windows import WindowKind

THRESHOLDS_MAX = 5
GRANTS_MAX = 16
Percent = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class PlanFeature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One feature of a plan as its author writes it; the feature's kind comes from the catalog.

    Attributes:
        enabled: whether the plan includes it.
        value: what a static feature is set to; other kinds have none.
        by_role: for calls of the roles named here this counts instead.
    """

    feature: Key
    enabled: bool = True
    value: FeatureValue = None
    by_role: Annotated[dict[Key, RoleTerms], msgspec.Meta(max_length=ROLES_MAX)] = {}


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``per`` units cost: whole millionths of a unit of the currency (ISO 4217)."""

    micros: Quantity
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
    per: Annotated[int, msgspec.Meta(ge=1, le=10**9)] = 1


class PlanLimit(Limit, frozen=True, forbid_unknown_fields=True):
    """One limit of a plan as its author writes it: what agents enforce, and what only the control plane does with it.

    Attributes:
        by_role: another amount for the calls of each of these roles, in counters of their own; ``None``: unlimited.
        per_seat: the amounts are for one seat of the subscription.
        prorate: when the plan, its add-ons or its seats change within a window, the window's amount is what each gives
            for its part of the window, by time; without it the newest counts for the whole window.
        shadow: refuses nothing; the control plane counts what it would have refused.
        thresholds: per cent of the amount (1 to 1000) at which somebody is to be told, once a crossing; of a balance,
            per cent of the grants that count at the time.
        overage_price: what is asked for what passes the amount.
    """

    by_role: Annotated[dict[Key, Quantity | None], msgspec.Meta(max_length=ROLES_MAX)] = {}
    per_seat: bool = False
    prorate: bool = False
    shadow: bool = False
    thresholds: Annotated[tuple[Percent, ...], msgspec.Meta(max_length=THRESHOLDS_MAX)] = ()
    overage_price: Price | None = None

    def enforced(self) -> Iterator[Limit]:
        """What agents are told: this limit, and one for each role that has an amount of its own."""
        own = {name: getattr(self, name) for name in Limit.__struct_fields__}
        yield Limit(**own | {"except_roles": (*self.except_roles, *self.by_role)})
        for role, amount in self.by_role.items():
            yield Limit(**own | {"key": f"{self.key}@{role}", "amount": amount, "roles": (role,)})


class PlanGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Credit that comes with a plan: anew in each window while the subscription gives something.

    Attributes:
        every: the window in which it comes and at the end of which it is gone; ``lifetime``: once, and it stays.
        per_seat: the amount is for one seat.
        rollover_min, rollover_max: ``min(max, max(left, min))`` of what is left goes on into the next window; a maximum
            of 0: nothing. rollover_days: for how long; ``None``: for one more window.
    """

    key: Key
    meter: Key
    amount: Quantity
    every: WindowKind = WindowKind.BILLING_PERIOD
    priority: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    per_seat: bool = False
    rollover_min: Quantity = 0
    rollover_max: Quantity = 0
    rollover_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] | None = None


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the author of a plan or add-on writes.

    Attributes:
        features: those it includes; limits: how much of what.
        rates: at which calls turn into meters of their own (a limit on such a meter is a credit pool). price_books:
            those of the models that it offers out of price books.
        grants: credit that comes with it.
        unfinished_calls: what is charged of calls whose provider has not said what they used; a plan says it, for its
            add-ons too.
    """

    features: Annotated[tuple[PlanFeature, ...], msgspec.Meta(max_length=FEATURES_MAX)] = ()
    limits: Annotated[tuple[PlanLimit, ...], msgspec.Meta(max_length=LIMITS_MAX)] = ()
    rates: Annotated[tuple[Rate, ...], msgspec.Meta(max_length=RATES_MAX)] = ()
    price_books: Annotated[tuple[PriceBookUse, ...], msgspec.Meta(max_length=USES_MAX)] = ()
    grants: Annotated[tuple[PlanGrant, ...], msgspec.Meta(max_length=GRANTS_MAX)] = ()
    unfinished_calls: UnfinishedCalls = UnfinishedCalls.ESTIMATED


class PlanBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published version of a plan or add-on: never changes once written, so it names the kinds of its features
    itself, and the versions of its price books; ``rates`` are its own and those that these make."""

    features: tuple[Feature, ...] = ()
    limits: tuple[PlanLimit, ...] = ()
    rates: tuple[Rate, ...] = ()
    grants: tuple[PlanGrant, ...] = ()
    price_books: tuple[PriceBookUse, ...] = ()
    unfinished_calls: UnfinishedCalls = UnfinishedCalls.ESTIMATED
